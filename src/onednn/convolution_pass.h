#pragma once

namespace kinefit {

enum class ConvolutionPass { kForward, kBackwardInput, kBackwardWeight };

}  // namespace kinefit
