#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "memory/diagnosis.h"
#include "memory/testing/oom_invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view log(reinterpret_cast<const char*>(data), size);
  std::vector<kinefit::Diagnosis> diagnoses;
  for (const kinefit::OomMessage& message : kinefit::FindOomMessages(log)) {
    diagnoses.push_back(kinefit::Diagnose(message));
    const std::string broken = kinefit::BrokenPromise(diagnoses.back());
    if (broken.empty()) continue;
    std::fprintf(stderr, "%s\n", broken.c_str());
    std::abort();
  }
  kinefit::DiagnoseTogether(diagnoses);
  return 0;
}
