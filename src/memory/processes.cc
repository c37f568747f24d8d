#include "memory/processes.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "memory/plan.h"

namespace kinefit {
namespace {

constexpr size_t kCommandBytes = 200;

// The first `most` bytes; "" if the file is not there.
std::string ReadStart(const std::string& path, size_t most) {
  std::ifstream file(path, std::ios::binary);
  std::string text(most, '\0');
  file.read(text.data(), static_cast<std::streamsize>(most));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

// Processes choose these texts: nothing in them may move the cursor of who reads them.
std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string UserName(uid_t user) {
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
    return found->pw_name;
  }
  return std::to_string(user);
}

int64_t ResidentBytes(const std::string& folder) {
  std::ifstream file(folder + "/statm");
  int64_t size = 0;
  int64_t resident = 0;
  file >> size >> resident;
  return file ? resident * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

std::optional<ProcessEntry> ReadProcess(int64_t pid, const std::string& proc) {
  const std::string folder = proc + "/" + std::to_string(pid);
  struct stat status {};
  if (pid <= 0 || stat(folder.c_str(), &status) != 0) return std::nullopt;
  ProcessEntry process;
  process.pid = pid;
  process.name = Printable(ReadStart(folder + "/comm", 64));
  process.command = Printable(ReadStart(folder + "/cmdline", kCommandBytes));
  process.user = UserName(status.st_uid);
  process.resident = ResidentBytes(folder);
  // Threads of the kernel have no command line, and a process may have ended meanwhile.
  if (process.name.empty() && process.command.empty()) return std::nullopt;
  return process;
}

std::vector<ProcessEntry> LargestProcesses(size_t count, const std::string& proc) {
  std::vector<std::pair<int64_t, int64_t>> sizes;  // (resident, pid)
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(proc, error)) {
    const std::string name = entry.path().filename().string();
    if (name.empty() || name.size() > 18 ||
        name.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    sizes.emplace_back(ResidentBytes(entry.path().string()), std::stoll(name));
  }
  std::sort(sizes.rbegin(), sizes.rend());
  std::vector<ProcessEntry> largest;
  for (const auto& [resident, pid] : sizes) {
    if (largest.size() == count || resident == 0) break;
    if (std::optional<ProcessEntry> process = ReadProcess(pid, proc)) {
      largest.push_back(std::move(*process));
    }
  }
  return largest;
}

HostMemory ReadHostMemory(const std::string& proc) {
  HostMemory host;
  std::ifstream file(proc + "/meminfo");
  std::string key;
  std::string rest;
  for (int64_t kib = 0; file >> key >> kib; std::getline(file, rest)) {
    if (key == "MemTotal:") host.total = kib * 1024;
    if (key == "MemAvailable:") host.available = kib * 1024;
  }
  const int64_t limit = MachineMemory();
  if (limit < host.total) host.limit = limit;
  return host;
}

}  // namespace kinefit
