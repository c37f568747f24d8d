#include "config/hierarchy.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "config/load.h"
#include "config/testing.h"

namespace kinefit {
namespace {

using Groups = std::vector<std::vector<int64_t>>;

const char kByName[] =
    "[[group]]\nname = 'face'\nclasses = ['drink', 'call']\n"
    "[[group]]\nname = 'else'\nclasses = [2, 'wave']\n";
const std::vector<std::string> kNames = {"drink", "call", "march", "wave"};

TEST(Hierarchy, BuiltInOnesHoldEveryClassOnce) {
  const std::vector<std::pair<std::string, int64_t>> known = {
      {"demo", 10}, {"jhmdb14", 14}, {"ma52", 52}, {"ntu60", 60}, {"ntu60_semantic", 60}};
  EXPECT_EQ(BuiltInHierarchyNames().size(), known.size());
  for (const auto& [name, classes] : known) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(IsBuiltInHierarchy(name));
    const ClassHierarchy hierarchy = LoadHierarchy(name, classes, "");
    EXPECT_EQ(hierarchy.names.size(), hierarchy.groups.size());
    std::set<int64_t> seen;
    for (const auto& group : hierarchy.groups) seen.insert(group.begin(), group.end());
    EXPECT_EQ(static_cast<int64_t>(seen.size()), classes);
    EXPECT_EQ(*seen.rbegin(), classes - 1);
  }
}

// Where the published groups end.
TEST(Hierarchy, PublishedGroupsAreRuns) {
  const auto expect_runs = [](const std::string& name, const std::vector<int64_t>& lasts) {
    const ClassHierarchy hierarchy = LoadHierarchy(name, lasts.back() + 1, "");
    ASSERT_EQ(hierarchy.groups.size(), lasts.size());
    int64_t next = 0;
    for (size_t g = 0; g < lasts.size(); ++g) {
      std::vector<int64_t> run(static_cast<size_t>(lasts[g] + 1 - next));
      std::iota(run.begin(), run.end(), next);
      EXPECT_EQ(hierarchy.groups[g], run);
      next = lasts[g] + 1;
    }
  };
  expect_runs("ma52", {4, 10, 23, 31, 37, 47, 51});
  expect_runs("ntu60", {9, 19, 29, 39, 44, 49, 54, 59});
}

TEST(Hierarchy, NamesAreResolved) {
  const ClassHierarchy hierarchy = ParseHierarchy(kByName, "my.toml", 4, kNames);
  EXPECT_EQ(hierarchy.groups, (Groups{{0, 1}, {2, 3}}));
  EXPECT_EQ(hierarchy.names, (std::vector<std::string>{"face", "else"}));
}

TEST(Hierarchy, MistakesAreOneSentenceThatNamesThePlace) {
  const auto refused = [](const std::string& text, const std::string& part, int64_t classes = 4) {
    const Error error = ErrorOf([&] { ParseHierarchy(text, "my.toml", classes, kNames); });
    EXPECT_CONTAINS(error.problem(), part);
    EXPECT_CONTAINS(error.where(), "my.toml");
  };
  const auto two = [](const std::string& first, const std::string& second) {
    std::string text = "[[group]]\nname='a'\nclasses=[" + first;
    return text.append("]\n[[group]]\nname='b'\nclasses=[").append(second).append("]");
  };
  refused(two("0, 1", "3"), "class 2 is in no group");
  refused(two("'drink'", "'call', 'march'"), "class 3 (\"wave\") is in no group");
  refused(two("0, 1", "2, 3, 1"), "class 1 is in two groups, \"a\" and \"b\"");
  refused(two("0, 0", "1, 2, 3"), "class 0 is in two groups, \"a\" and \"a\"");
  refused(two("0, 1", "2, 3"), "one of 4 classes, but model.num_classes is 5", 5);
  refused(two("0, 1", "2, 3"), "one of 4 classes, but model.num_classes is 3", 3);
  refused(two("0, 1", "2, 'wavve'"), "no class called \"wavve\"");
  refused(two("0, 1", "2, -1"), "a class");
  refused(two("0, 1", "2, 3.5"), "a class");
  refused(two("0, 1, 2, 3", ""), "group \"b\" has no classes");
  refused("", "no groups");
  refused("group = 3", "a group must be a table");
  refused("group = [3]", "a group must be a table");
  refused("[[group]]\nclasses = [0]", "no name");
  refused("[[group]]\nname = 'a'", "no classes");
  refused("[[group]]\nname = 'a'\nclass = [1]", "\"class\"");
  refused("[[groups]]\nname = 'a'", "\"groups\"");
  refused("[[group]]\nname='a'\nclasses=[0]\n[[group]]\nname='a'\nclasses=[1]", "two groups");
  EXPECT_CONTAINS(ErrorOf([] { ParseHierarchy(kByName, "my.toml", 4, {}); }).problem(),
                  "the classes have no names");
}

TEST(DataHierarchy, FillsTheGroups) {
  const LoadedConfig loaded = LoadConfigText("[data]\nhierarchy = 'ntu60'", "c.toml");
  const Config& config = loaded.config;
  EXPECT_EQ(config.model.groups.size(), 8U);
  EXPECT_EQ(config.model.group_names.size(), 8U);
  EXPECT_EQ(loaded.provenance.at("model.groups"), "hierarchy \"ntu60\"");
  EXPECT_EQ(DumpConfig(LoadConfigText(DumpConfig(config), "").config), DumpConfig(config));
  // Groups that are written out count.
  const Config own =
      LoadConfigText("[data]\nhierarchy = 'ntu60'\n[model]\ngroups = [[0]]", "").config;
  EXPECT_EQ(own.model.groups, (Groups{{0}}));
  EXPECT_TRUE(own.model.group_names.empty());
}

TEST(DataHierarchy, MistakesNameTheOption) {
  const Error count = ErrorOf(
      [] { LoadConfigText("[data]\nhierarchy = 'ntu60'\n[model]\nnum_classes = 52", "c.toml"); });
  EXPECT_CONTAINS(count.problem(), "one of 60 classes, but model.num_classes is 52");
  EXPECT_CONTAINS(count.where(), "c.toml:2: data.hierarchy");
  const Error unknown = ErrorOf([] { LoadConfigText("", "", {"data.hierarchy=ntu"}); });
  EXPECT_CONTAINS(unknown.problem(), "\"ntu\" is not a hierarchy");
  EXPECT_CONTAINS(unknown.remedy(), "demo, jhmdb14, ma52, ntu60, ntu60_semantic");
}

class DataHierarchyFile : public ConfigFiles {};

TEST_F(DataHierarchyFile, OfOnesOwn) {
  const std::string hierarchy = Write("my.toml", kByName);
  const std::string classes = Write("classes.txt", "drink\ncall\r\nmarch\nwave\n");
  const std::string main = Write("main.toml", "[model]\nnum_classes = 4\n[data]\nhierarchy = '" +
                                                  hierarchy + "'\nclasses = '" + classes + "'\n");
  const LoadedConfig loaded = LoadConfig(main);
  EXPECT_EQ(loaded.config.model.groups, (Groups{{0, 1}, {2, 3}}));
  // A checkpoint's configuration needs neither file any longer.
  std::filesystem::remove(hierarchy);
  std::filesystem::remove(classes);
  EXPECT_EQ(DumpConfig(LoadConfigText(DumpConfig(loaded), "checkpoint").config),
            DumpConfig(loaded.config));
  EXPECT_CONTAINS(std::string(ErrorOf([&] { LoadConfig(main); }).what()), "my.toml");
}

TEST_F(DataHierarchyFile, LaterLayersReplaceEarlierGroups) {
  Write("base.toml", "[model]\nnum_classes = 60\ngroups = [[0, 1]]\ngroup_names = ['a']\n");
  const std::string main =
      Write("main.toml", "include = 'base.toml'\n[data]\nhierarchy = 'ntu60_semantic'\n");
  EXPECT_EQ(LoadConfig(main).config.model.groups.size(), 10U);
  EXPECT_EQ(LoadConfig(main, {"data.hierarchy=ntu60"}).config.model.groups.size(), 8U);
  EXPECT_EQ(LoadConfig(main, {"model.groups=[[0], [1]]"}).config.model.groups.size(), 2U);
  // A checkpoint's groups, too.
  const std::string whole = DumpConfig(LoadConfig(main));
  EXPECT_EQ(LoadConfigText(whole, "", {"data.hierarchy=ntu60"}).config.model.groups.size(), 8U);
}

}  // namespace
}  // namespace kinefit
