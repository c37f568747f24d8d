#include "config/hierarchy.h"

#include <gtest/gtest.h>

#include "config/testing.h"
#include "config/validate.h"

namespace kinefit {
namespace {

using Groups = std::vector<std::vector<int64_t>>;
using Names = std::vector<std::string>;

std::vector<int64_t> Sizes(const std::string& hierarchy, int64_t num_classes) {
  std::vector<int64_t> sizes;
  for (const auto& group : ResolveHierarchy(LoadHierarchy(hierarchy), {}, num_classes)) {
    sizes.push_back(static_cast<int64_t>(group.size()));
  }
  return sizes;
}

// The sizes as they are published (MA-52).
TEST(Hierarchy, BuiltInOnesHaveEveryClassOnce) {
  EXPECT_EQ(BuiltInHierarchyNames(), (Names{"demo", "jhmdb14", "ma52", "ntu60", "ntu60_semantic"}));
  EXPECT_EQ(Sizes("ma52", 52), (std::vector<int64_t>{5, 6, 13, 8, 6, 10, 4}));
  EXPECT_EQ(Sizes("ntu60", 60), (std::vector<int64_t>{10, 10, 10, 10, 5, 5, 5, 5}));
  EXPECT_EQ(Sizes("ntu60_semantic", 60).size(), 8U);
  EXPECT_EQ(Sizes("jhmdb14", 14).size(), 4U);
  EXPECT_EQ(Sizes("demo", 10), (std::vector<int64_t>{2, 2, 2, 2, 2}));
}

// The comments beside the numbers of a shipped hierarchy are the classes' names.
TEST(Hierarchy, CommentsOfTheSemanticOneAreTheNames) {
  const Names names = ReadClassFile(std::string(KINEFIT_SOURCE) + "/configs/classes/ntu60.txt");
  for (const EmbeddedFile& file : BuiltInHierarchies()) {
    if (file.name != "ntu60_semantic") continue;
    for (size_t i = 0; i < names.size(); ++i) {
      EXPECT_CONTAINS(std::string(file.text), "\n  " + std::to_string(i) + ",  # " + names[i] + "\n");
    }
  }
}

TEST(Hierarchy, NamesAndNumbersMayMix) {
  const ClassHierarchy hierarchy = ParseHierarchy(
      "[[groups]]\nname = 'arms'\nclasses = ['wave', 0]\n[[groups]]\nname = 'legs'\nclasses = [1]",
      "my.toml");
  EXPECT_TRUE(hierarchy.has_names());
  EXPECT_EQ(ResolveHierarchy(hierarchy, {"clap", "kick", "wave"}, 3), (Groups{{0, 2}, {1}}));
}

Error Refused(const std::string& arms, const std::string& legs, int64_t num_classes = 3) {
  return ErrorOf([&] {
    ResolveHierarchy(ParseHierarchy("[[groups]]\nname = 'arms'\nclasses = " + arms +
                                        "\n[[groups]]\nname = 'legs'\nclasses = " + legs,
                                    "my.toml"),
                     {"clap", "kick", "wave"}, num_classes);
  });
}

TEST(Hierarchy, EveryClassIsInExactlyOneGroup) {
  EXPECT_EQ(Refused("[0]", "[2]").problem(), "class 1 (kick) is in no group");
  EXPECT_EQ(Refused("[0, 1]", "[2, 1]").problem(),
            "class 1 (kick) is in two groups, \"arms\" and \"legs\"");
  EXPECT_EQ(Refused("[0, 1]", "[2, 2]").problem(),
            "class 2 (wave) is in two groups, \"legs\" and \"legs\"");
  EXPECT_EQ(Refused("[0, 1]", "[2]", 4).problem(),
            "the groups are of 3 classes, but model.num_classes is 4");
  EXPECT_EQ(Refused("[0, 1]", "[3]").problem(),
            "group \"legs\" has class 3, but there are 3 classes, counted from 0");
  const Error unknown = Refused("['clap', 'kik']", "['wave']");
  EXPECT_EQ(unknown.problem(), "group \"arms\" names the unknown class \"kik\"");
  EXPECT_EQ(unknown.where(), "my.toml:3");
  EXPECT_EQ(unknown.remedy(), "did you mean \"kick\"?");
}

TEST(Hierarchy, MistakesOfTheFileNameTheLine) {
  const auto refused = [](const std::string& text, const std::string& part) {
    const Error error = ErrorOf([&] { ParseHierarchy(text, "my.toml"); });
    EXPECT_CONTAINS(std::string(error.what()), part);
    EXPECT_CONTAINS(std::string(error.what()), "my.toml");
  };
  refused("", "no groups");
  refused("groups = 3", "not part of a hierarchy");
  refused("groups = [3]", "must be a table");
  refused("[[group]]\nname = 'a'", "\"group\" is not part of a hierarchy");
  refused("[[groups]]\nclasses = [1]", "no name");
  refused("[[groups]]\nname = 'a'", "no classes");
  refused("[[groups]]\nname = 'a'\nclasses = [1.5]", "a number or a name");
  refused("[[groups]]\nname = 'a'\nclasses = 1", "a list in square brackets");
  refused("[[groups]]\nname = 'a'\nclass = [1]", "\"class\" is not part of a group");
  refused("[[groups]]\nname = 'a'\nclasses = [0]\n[[groups]]\nname = 'a'\nclasses = [1]",
          "two groups are called \"a\"");
  refused("[[groups]", "my.toml:1");
}

TEST(DataHierarchy, FillsWhatIsNotSet) {
  const LoadedConfig loaded =
      LoadConfigText("[model]\nnum_classes = 52\n[data]\nhierarchy = 'ma52'", "c.toml");
  EXPECT_EQ(loaded.config.model.group_names,
            (Names{"body", "head", "upper limb", "lower limb", "body-hand", "head-hand", "leg-hand"}));
  EXPECT_EQ(loaded.config.model.groups[6], (std::vector<int64_t>{48, 49, 50, 51}));
  EXPECT_EQ(loaded.provenance.at("model.groups"), "hierarchy \"ma52\"");
  const std::vector<int64_t> group_of = GroupOfClass(loaded.config.model);
  EXPECT_EQ(group_of.size(), 52U);
  EXPECT_EQ(group_of[4], 0);
  EXPECT_EQ(group_of[5], 1);
  EXPECT_EQ(group_of[51], 6);
  const Config own = LoadConfigText("[model]\nnum_classes = 2\ngroups = [[1], [0]]\n"
                                    "[data]\nhierarchy = 'ma52'", "").config;
  EXPECT_EQ(own.model.groups, (Groups{{1}, {0}}));
}

TEST(DataHierarchy, MistakesSayWhereItWasAskedFor) {
  // A checkpoint's text has the groups in it: only what an override asks for is looked up.
  EXPECT_TRUE(LoadConfigText("[data]\nhierarchy = 'ma51'", "").config.model.groups.empty());
  const Error asked = ErrorOf([] { LoadConfigText("", "c.toml", {"data.hierarchy=ma51"}); });
  EXPECT_CONTAINS(asked.problem(), "\"ma51\" is not a hierarchy");
  EXPECT_CONTAINS(asked.remedy(), "demo, jhmdb14, ma52, ntu60, ntu60_semantic");
  EXPECT_EQ(asked.where(), "--set: data.hierarchy");
}

class DataHierarchyFile : public ConfigFiles {};

TEST_F(DataHierarchyFile, OfOnesOwnWithNames) {
  const std::string classes = Write("classes.txt", "clap\nkick\n\nwave\n");
  const std::string file = Write(
      "groups.toml",
      "[[groups]]\nname='arms'\nclasses=['clap','wave']\n[[groups]]\nname='legs'\nclasses=['kick']");
  const std::string main =
      Write("main.toml", "[model]\nnum_classes = 3\n[data]\nhierarchy = '" + file +
                             "'\nclasses = '" + classes + "'\n");
  const LoadedConfig loaded = LoadConfig(main);
  EXPECT_EQ(loaded.config.model.groups, (Groups{{0, 2}, {1}}));
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(main, {"data.classes="}); }).problem(),
                  "the classes' names are not known");
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(main, {"data.classes=/none"}); }).where(), "/none");
  // A checkpoint's configuration needs the files no longer ...
  std::filesystem::remove(file);
  const std::string whole = DumpConfig(loaded);
  EXPECT_EQ(DumpConfig(LoadConfigText(whole, "checkpoint").config), DumpConfig(loaded.config));
  // ... unless it is given another hierarchy.
  EXPECT_CONTAINS(
      ErrorOf([&] { LoadConfigText(whole, "checkpoint", {"data.hierarchy=demo"}); }).problem(),
      "of 10 classes");
  EXPECT_TRUE(LoadConfigText(whole, "checkpoint", {"data.hierarchy="}).config.model.groups.empty());
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(main); }).where(), "groups.toml");
}

TEST_F(DataHierarchyFile, LaterLayersReplaceEarlierGroups) {
  Write("base.toml", "[model]\nnum_classes = 10\ngroups = [[0, 1], [2]]\n");
  const std::string main =
      Write("main.toml", "include = 'base.toml'\n[data]\nhierarchy = 'demo'\n");
  EXPECT_EQ(LoadConfig(main).config.model.groups.size(), 5U);
}

TEST(DataHierarchy, GroupsAreCheckedForEveryNetwork) {
  const LoadedConfig loaded =
      LoadConfigText("[model]\ntype = 'rgb'\nnum_classes = 3\ngroups = [[0], [2]]", "c.toml");
  const Error error = ErrorOf([&] { Validate(loaded.config, &loaded.provenance); });
  EXPECT_EQ(error.problem(), "class 1 is in no group");
  EXPECT_EQ(error.where(), "model.groups (c.toml:4)");
}

}  // namespace
}  // namespace kinefit
