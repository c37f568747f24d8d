#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/pickle.h"

// Internal to src/files: how Pickle stores what its values point to.
namespace kinefit::pickle_internal {

// Classes and functions that the reader understands; kUnknown makes opaque objects.
enum class Known : uint8_t {
  kUnknown,
  kDict,          // dict, OrderedDict, defaultdict, Counter
  kList,          // list
  kTuple,         // tuple
  kSet,           // set, frozenset
  kBytes,         // bytes, bytearray
  kEncode,        // _codecs.encode: how protocols 0 to 2 write bytes
  kReconstruct,   // numpy's empty array, filled by BUILD
  kFromBuffer,    // numpy's array of protocol 5
  kScalar,        // numpy's scalar
  kDType,         // numpy.dtype
  kTorchStorage,  // a tensor's elements, as a file of torch.save within the pickle
  kTorchTensor,   // a tensor over such elements
};

struct Node {
  PickleKind kind = PickleKind::kNone;
  Known known = Known::kUnknown;  // of a global; of an object, that of its class
  uint8_t mark = 0;               // used by the check for cycles
  uint32_t depth = 0;             // likewise
  // Items of a sequence; key, value, key, value of a dict; module and name of a global; class,
  // arguments, state of an object (then what was appended to it); id of a persistent reference.
  std::vector<PickleValue> items;
  std::unique_ptr<NdArrayView> array;
};

}  // namespace kinefit::pickle_internal

namespace kinefit {

struct Pickle::Storage {
  std::string bytes;
  std::deque<pickle_internal::Node> nodes;
  std::deque<std::string> strings;  // decoded or reordered copies; all other text lies in `bytes`
};

}  // namespace kinefit
