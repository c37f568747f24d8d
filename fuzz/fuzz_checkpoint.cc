#include <cstdint>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "files/error.h"
#include "files/publish.h"
#include "files/torch_legacy.h"
#include "files/zip.h"
#include "memory_file.h"

namespace {

void Read(const std::string& path) {
  try {
    const kinefit::CheckpointDict root = kinefit::ReadCheckpoint(path);
    for (const auto& [name, tensor] : kinefit::StateDictOf(root, "fuzz", true)) {
      if (tensor.numel() < 1000000) tensor.to(at::kDouble).sum();
    }
  } catch (const kinefit::Error&) {
  }
}

}  // namespace

// The input is a file of its own where it begins as one from before PyTorch 1.6 or as safetensors;
// else data.pkl, put into an archive with correct checksums: that zip archives are read well is for
// fuzz_zip to find out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = "/dev/shm/kinefit-fuzz-" + std::to_string(getpid()) + ".pth";
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (kinefit::TorchLegacyFile::Recognises(bytes) || kinefit::LooksLikeSafetensors(bytes)) {
    kinefit::PublishFile(path, bytes);
    Read(path);
    unlink(path.c_str());
    return 0;
  }
  kinefit::ZipWriter zip(path);
  zip.Add("archive/data.pkl", data, size);
  zip.Add("archive/data/0", std::string(24, '\1'));
  zip.Add("archive/data/floats", std::string(16, '\1'));
  zip.Commit();
  Read(path);
  unlink(path.c_str());
  return 0;
}
