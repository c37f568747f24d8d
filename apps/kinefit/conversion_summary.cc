#include "apps/kinefit/conversion_summary.h"

#include <algorithm>
#include <iostream>

namespace kinefit {
namespace {

void PrintNotes(const std::vector<ClipNote>& notes, const std::string& title,
                const std::string& report) {
  constexpr size_t kShown = 5;
  if (notes.empty()) return;
  std::cout << notes.size() << " " << title << ":\n";
  for (size_t i = 0; i < std::min(notes.size(), kShown); ++i) {
    std::cout << "  " << notes[i].id << ": " << notes[i].text << "\n";
  }
  if (notes.size() > kShown) std::cout << "  ... " << report << " has them all\n";
}

}  // namespace

void PrintConversion(const ConversionReport& report, const std::string& out) {
  const std::string file = out + "/report.json";
  PrintNotes(report.left_out, "clips could not be used", file);
  PrintNotes(report.changed, "clips were changed", file);
  for (const std::string& remark : report.remarks) std::cout << remark << "\n";
  std::cout << "wrote " << report.clips << " clips:";
  for (size_t i = 0; i < report.splits.size(); ++i) {
    std::cout << (i == 0 ? " " : ", ") << report.splits[i].first << " " << report.splits[i].second;
  }
  std::cout << "\n  include = \"" << report.include << "\"\n";
  if (report.next.empty()) return;
  std::cout << "next:\n";
  for (const std::string& command : report.next) std::cout << "  " << command << "\n";
}

}  // namespace kinefit
