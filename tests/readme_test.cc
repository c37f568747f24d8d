// The two READMEs say the same: as many sections and rows of tables, the same commands, the same
// settings in the configurations shown, the same pages linked.

#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "tests/process.h"

namespace kinefit::testing {
namespace {

struct Page {
  int headings = 0;
  int rows = 0;
  std::vector<std::string> commands;  // of sh blocks, without comments
  std::vector<std::string> settings;  // of toml blocks, likewise
  std::set<std::string> links;
};

std::string WithoutComment(const std::string& line) {
  std::string text = line.substr(0, line.find(" #"));
  if (!text.empty() && text[0] == '#') text.clear();
  const size_t end = text.find_last_not_of(" \r");
  return end == std::string::npos ? "" : text.substr(0, end + 1);
}

Page Read(const std::string& name) {
  Page page;
  std::string block;
  std::istringstream lines(ReadText(std::string(KINEFIT_SOURCE) + "/" + name));
  static const std::regex link(R"(\]\(((docs|configs)/[^)#]*))");
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("```", 0) == 0) {
      block = block.empty() ? (line.size() > 3 ? line.substr(3) : "text") : "";
      continue;
    }
    const std::string code = WithoutComment(line);
    if (block == "sh" && !code.empty()) page.commands.push_back(code);
    if (block == "toml" && !code.empty()) page.settings.push_back(code);
    if (!block.empty()) continue;
    page.headings += line.rfind("## ", 0) == 0 ? 1 : 0;
    page.rows += line.rfind("|", 0) == 0 ? 1 : 0;
    for (std::sregex_iterator at(line.begin(), line.end(), link), end; at != end; ++at) {
      page.links.insert((*at)[1]);
    }
  }
  return page;
}

TEST(Readme, BothLanguagesSayTheSame) {
  const Page english = Read("README.md");
  const Page chinese = Read("README.zh-CN.md");
  EXPECT_GT(english.headings, 5);
  EXPECT_GT(english.commands.size(), 20U);
  EXPECT_EQ(english.headings, chinese.headings);
  EXPECT_EQ(english.rows, chinese.rows);
  EXPECT_EQ(english.commands, chinese.commands);
  EXPECT_EQ(english.settings, chinese.settings);
  EXPECT_EQ(english.links, chinese.links);
}

}  // namespace
}  // namespace kinefit::testing
