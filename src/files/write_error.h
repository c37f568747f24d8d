#pragma once

#include <string>

// Inside src/files: what its writers share.

namespace kinefit {

// "cannot ACTION the file: REASON", with what to do about it. Throws Error.
[[noreturn]] void ThrowWriteError(const std::string& action, const std::string& path,
                                  int error_number);

// True if a test (ScopedFileFault) wants this system call to fail; errno is set then.
bool FaultInjected();

// fsync of the folder of `path`, without which a new name could be lost with the power. 0, or the
// error's number.
int FlushFolderOf(const std::string& path);

}  // namespace kinefit
