#pragma once

#include "dataset/packed_format.h"
#include "dataset/packed_writer.h"
#include "dataset/sample.h"

namespace kinefit {

// The settings of a store whose pictures are those that `data` would cut out.
PackSettings PackSettingsOf(const DataConfig& data);

// Decodes all frames of the sample's video and makes the pictures of a packed store: the part
// around the box of all joints of all frames (CompactBox), with the margin that the boxes of fewer
// frames need, scaled down by ResizeFrame where the box's short side is larger than wanted (never
// up), as JPEG. A pure function of its arguments and the video's bytes. Throws Error naming the
// video if it cannot be read, is too short, or has another shape than the annotation says.
PackedClip PackClip(const Sample& sample, const PackSettings& settings);

}  // namespace kinefit
