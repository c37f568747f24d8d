#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kinefit {

// What a clip became.
struct ConvertedClip {
  std::string encoded;   // EncodeClip's; "" if it could not be used
  std::string left_out;  // why
  std::string changed;   // how it differs from its file; "" if not
};

// The clips of one piece of work, in an order that whoever made it knows.
struct ConvertedPart {
  std::vector<ConvertedClip> clips;
  int64_t joints = 0;  // of a person; 0 if no pose was found
};

// Finished pieces of a conversion in `out`/.parts, so that one that was cut off goes on where it
// was. A piece counts only as long as it is whole and what it was made from is what it was:
// `made_from` is text that changes with that (FileState). Several threads may read and write, each
// its own pieces.
class PartFolder {
 public:
  // Makes `out` and the folder in it; removes what a run that was cut off left half-written there.
  explicit PartFolder(const std::string& out);

  // False if the piece is not there or does not count. With `part` null it is only checked.
  bool Read(const std::string& name, const std::string& made_from, ConvertedPart* part) const;
  // `made_from` as it was before the files were read, so that files that changed meanwhile are
  // noticed. The piece appears whole or not at all. Throws Error.
  void Write(const std::string& name, const std::string& made_from,
             const ConvertedPart& part) const;

 private:
  std::string PathOf(const std::string& name) const { return folder_ + "/" + name + ".zip"; }

  std::string folder_;
};

// Size and time of the last change, as text; "none" for what cannot be looked at.
std::string FileState(const std::string& path);

}  // namespace kinefit
