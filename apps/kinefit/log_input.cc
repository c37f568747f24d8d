#include "apps/kinefit/log_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "files/error.h"

namespace kinefit {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : number_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)),
        owned_(path != "-") {}
  ~Descriptor() {
    if (owned_ && number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
  bool owned_;
};

[[noreturn]] void Fail(const std::string& problem, const std::string& name) {
  throw Error(problem, name,
              "give the log of the run, or paste the message: kinefit explain-oom < run.log");
}

// Appends up to `most` bytes; how many there were.
size_t ReadSome(int file, size_t most, const std::string& name, std::string* text) {
  const size_t before = text->size();
  text->resize(before + most);
  ssize_t count = 0;
  do {
    count = read(file, text->data() + before, most);
  } while (count < 0 && errno == EINTR);
  text->resize(before + static_cast<size_t>(std::max<ssize_t>(count, 0)));
  if (count < 0) Fail(std::string("it cannot be read: ") + std::strerror(errno), name);
  return static_cast<size_t>(count);
}

// Keeps the last `most` bytes of whatever comes.
void ReadToEnd(int file, uint64_t most, bool endless, LogInput* input) {
  std::string& text = input->text;
  while (ReadSome(file, size_t{1} << 20, input->name, &text) > 0) {
    if (endless && text.size() >= most) return;
    if (text.size() < 2 * most) continue;
    const size_t excess = text.size() - most;
    text.erase(0, excess);
    input->left_out += excess;
  }
  if (text.size() > most) {
    input->left_out += text.size() - most;
    text.erase(0, text.size() - most);
  }
}

// 'l' or 'b' for UTF-16 in that byte order, 0 for anything else.
char Utf16Order(const std::string& start) {
  if (start.size() < 2) return 0;
  if (start[0] == '\xff' && start[1] == '\xfe') return 'l';
  return start[0] == '\xfe' && start[1] == '\xff' ? 'b' : 0;
}

// ASCII stays, all else becomes a question mark: enough for the messages looked for.
std::string FromUtf16(const std::string& bytes, char order) {
  std::string text;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const char low = bytes[i + (order == 'l' ? 0 : 1)];
    const char high = bytes[i + (order == 'l' ? 1 : 0)];
    text += high == 0 && static_cast<unsigned char>(low) < 0x80 ? low : '?';
  }
  return text;
}

// Zero bytes and control characters that no log has, as more than one in a hundred.
bool LooksBinary(const std::string& text) {
  const size_t sample = std::min<size_t>(text.size(), size_t{1} << 20);
  size_t strange = 0;
  for (size_t i = 0; i < sample; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 8 || (c > 13 && c < 27) || (c > 27 && c < 32)) ++strange;
  }
  return strange * 100 > sample;
}

void ToText(char utf16, LogInput* input) {
  std::string& text = input->text;
  if (utf16 != 0) {
    // The end of a long file starts anywhere; in this encoding characters start at even bytes.
    if (input->left_out % 2 != 0) text.erase(0, 1);
    text = FromUtf16(text, utf16);
  }
  const size_t zeros = std::min(text.find_first_not_of('\0'), text.size());
  text.erase(0, zeros);
  if (text.empty()) Fail("it is empty", input->name);
  if (text.compare(0, 2, "\x1f\x8b") == 0) {
    throw Error("it is compressed", input->name, "zcat " + input->name + " | kinefit explain-oom");
  }
  if (LooksBinary(text)) Fail("it is a binary file, not a log", input->name);
}

}  // namespace

LogInput ReadLog(const std::string& path, uint64_t most) {
  LogInput input;
  input.name = path == "-" ? "standard input" : path;
  const Descriptor file(path);
  struct stat status {};
  if (file.number() < 0 || fstat(file.number(), &status) != 0) {
    Fail(std::string("it cannot be opened: ") + std::strerror(errno), input.name);
  }
  if (S_ISDIR(status.st_mode)) Fail("it is a folder", input.name);
  const bool terminal = isatty(file.number()) != 0;
  if (terminal) {
    std::fputs("Paste the message, then press Ctrl-D on an empty line.\n", stderr);
  }
  std::string start;
  const auto size = static_cast<uint64_t>(std::max<off_t>(status.st_size, 0));
  if (S_ISREG(status.st_mode) && lseek(file.number(), 0, SEEK_CUR) == 0 && size > most) {
    ReadSome(file.number(), 2, input.name, &start);
    input.left_out = size - most;
    lseek(file.number(), static_cast<off_t>(input.left_out), SEEK_SET);
  }
  const uint64_t skipped = input.left_out;
  // Devices other than terminals may go on for ever.
  ReadToEnd(file.number(), most, S_ISCHR(status.st_mode) && !terminal, &input);
  if (skipped == 0) start = input.text.substr(0, 2);
  ToText(Utf16Order(start), &input);
  return input;
}

}  // namespace kinefit
