#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "convert/annotation_file.h"
#include "convert/ntu_sample.h"

namespace kinefit {

struct NtuOptions {
  std::string skeletons;  // folder of .skeleton files, searched with its subfolders
  std::string rgb;        // folder of videos, likewise; "" = for pose-only networks
  std::string out;        // folder, made if missing
  NtuSet set = NtuSet::k60;
  int threads = 0;              // 0 = one per core
  double max_bad_share = 0.01;  // more samples than this that cannot be used are an Error
};

// Makes of NTU RGB+D as downloaded what a configuration can use: `out`/annotations.pkl (25 joints
// in colour pixels, up to two performers), classes.txt, report.json, and ntu60.toml or ntu120.toml
// to include, with splits xsub_train, xsub_val, and xview_* (60) or xset_* (120). Samples known to
// lack skeletons are left out; so are those that cannot be read, or whose video is missing.
//
// Finished pieces are kept in `out`/.parts, named for their samples and checked against the files'
// sizes and times: after a kill, or when files were added, only what is missing is done. The bytes
// written are the same for any number of threads. `progress` is told samples done and samples in
// all, from one thread at a time. Throws Error.
ConversionReport ConvertNtu(const NtuOptions& options,
                            const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace kinefit
