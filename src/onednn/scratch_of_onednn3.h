#pragma once

#include "onednn/convolution_scratch.h"

namespace kinefit {

// The same for LibTorch 2.x, whose oneDNN 3 cannot be asked: what oneDNN 2 says, where both choose
// the same kernels, with what oneDNN 3 takes more, and the kernels that only oneDNN 3 has worked
// out as it does (3.13). To the byte in float32 on one thread, where the width of an image is a
// multiple of the stride; else some kilobytes may be missing or too much.
// `transposed`: for a transposed convolution, `shape` being the convolution that leads back.
ConvolutionScratch ScratchOfOneDnn3(ConvolutionPass pass, const ConvolutionShape& shape,
                                    bool transposed);

}  // namespace kinefit
