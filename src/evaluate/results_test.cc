#include "evaluate/results.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "evaluate/confusion_plot.h"
#include "files/error.h"
#include "files/npy.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

class ResultsTest : public testing::Test {
 protected:
  ResultsTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-eval-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~ResultsTest() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Text(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  fs::path folder_;
};

// Three classes, four clips; the third class does not occur. rgb 2 of 4, fused 3 of 4.
EvaluationResult HandMade() {
  EvaluationResult result;
  result.ids = {"S001", "S002", "挥手", "S004"};
  const std::vector<int64_t> labels = {0, 0, 1, 1};
  result.streams = {
      {"rgb", {3, {.8, .1, .1, .2, .7, .1, .1, .8, .1, .6, .3, .1}, labels}},
      {"pose", {3, {.7, .2, .1, .9, .1, .0, .1, .8, .1, .5, .4, .1}, labels}},
      {"fused", {3, {1.5, .3, .2, 1.1, .8, .1, .2, 1.6, .2, 1.1, .7, .2}, labels}},
  };
  return result;
}

TEST_F(ResultsTest, SummaryPerStream) {
  const auto summaries = Summarise(HandMade());
  ASSERT_EQ(summaries.size(), 3U);
  EXPECT_EQ(summaries[0].stream, "rgb");
  EXPECT_DOUBLE_EQ(summaries[0].top1, 0.5);
  EXPECT_DOUBLE_EQ(summaries[2].top1, 0.75);
  EXPECT_DOUBLE_EQ(summaries[2].top5, 1);
  EXPECT_DOUBLE_EQ(summaries[2].mean_class, 0.75);
  const auto metrics = NamedMetrics(HandMade());
  ASSERT_EQ(metrics.size(), 12U);
  EXPECT_EQ(metrics[8].first, "top1/fused");
  EXPECT_DOUBLE_EQ(metrics[8].second, 0.75);
  // Class 0: TP 2, FP 1 -> 4/5; class 1: TP 1, FN 1 -> 2/3.
  EXPECT_EQ(metrics[11].first, "macro_f1/fused");
  EXPECT_DOUBLE_EQ(metrics[11].second, (0.8 + 2.0 / 3) / 2);
  EXPECT_EQ(SummaryRows(HandMade())[3],
            (std::vector<std::string>{"fused", "75.00 %", "100.00 %", "75.00 %", "73.33 %", "75.00 %"}));
}

TEST_F(ResultsTest, OneStreamIsReportedOnce) {
  EvaluationResult result = HandMade();
  result.streams = {{"pose", result.streams[1].second}, {"fused", result.streams[1].second}};
  const TextRows rows = SummaryRows(result);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[1][0], "pose");
  EXPECT_EQ(NamedMetrics(result)[0].first, "top1/pose");  // under its own name, and
  EXPECT_EQ(NamedMetrics(result)[4].first, "top1/fused");
}

TEST_F(ResultsTest, PerClassTable) {
  const TextRows rows = PerClassRows(HandMade().fused(), {"drink", "eat"});
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[1], (std::vector<std::string>{"0", "drink", "2", "100.00 %", "66.67 %", "-"}));
  EXPECT_EQ(rows[2],
            (std::vector<std::string>{"1", "eat", "2", "50.00 %", "100.00 %", "drink (1)"}));
  EXPECT_EQ(rows[3], (std::vector<std::string>{"2", "2", "0", "-", "-", "-"}));
}

TEST_F(ResultsTest, CsvIsQuotedAsRfc4180Says) {
  WriteCsv(Path("a.csv"), {{"class", "note"}, {"put on, a hat", "say \"hi\""}, {"挥手", "a\nb"}});
  EXPECT_EQ(Text("a.csv"),
            "class,note\r\n\"put on, a hat\",\"say \"\"hi\"\"\"\r\n挥手,\"a\nb\"\r\n");
}

TEST_F(ResultsTest, ConfusionAndSamplesAsRows) {
  WriteCsv(Path("c.csv"), ConfusionRows(HandMade().fused(), {"drink", "eat", "wave"}));
  EXPECT_EQ(Text("c.csv"),
            "label \\ prediction,drink,eat,wave\r\ndrink,2,0,0\r\neat,1,1,0\r\nwave,0,0,0\r\n");
  const TextRows rows = PerSampleRows(HandMade(), {"drink", "eat", "wave"});
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[4], (std::vector<std::string>{"S004", "eat", "drink", "0", "1.100000"}));
}

TEST_F(ResultsTest, ScoresComeBackFromTheNpz) {
  const EvaluationResult result = HandMade();
  WriteScores(Path("scores.npz"), result);
  const NpzArrays arrays = ReadNpz(Path("scores.npz"));
  EXPECT_EQ(arrays.size(), 5U);
  EXPECT_EQ(arrays.at("labels").ToInts("labels"), result.fused().labels);
  EXPECT_EQ(arrays.at("scores_fused").shape, (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(arrays.at("scores_fused").ToDoubles(), result.fused().scores);
  EXPECT_EQ(arrays.at("scores_rgb").ToDoubles(), result.streams[0].second.scores);
  const NdArray& ids = arrays.at("ids");
  ASSERT_EQ(ids.shape, (std::vector<int64_t>{4, 6}));
  EXPECT_EQ(ids.bytes.substr(12, 6), "挥手");
  EXPECT_EQ(ids.bytes.substr(0, 6), std::string("S001\0\0", 6));
}

// HandMade with groups {0}, {1, 2}: rgb 2 of 4, pose 2 of 4, fused 3 of 4, as in the fine classes.
EvaluationResult WithGroups() {
  EvaluationResult result = HandMade();
  for (const auto& [name, table] : result.streams) {
    result.coarse.emplace_back(name, CoarseTable(table, {0, 1, 1}));
  }
  return result;
}

TEST_F(ResultsTest, GroupsHaveATableOfTheirOwn) {
  EXPECT_TRUE(CoarseSummaryRows(HandMade()).empty());
  EvaluationResult result = WithGroups();
  const TextRows rows = CoarseSummaryRows(result);
  EXPECT_EQ(rows[0], (std::vector<std::string>{"groups", "top-1", "mean class", "macro F1",
                                               "micro F1", "mean of all F1"}));
  // (0.7333 + 0.75 + 0.7333 + 0.75) / 4
  EXPECT_EQ(rows[3], (std::vector<std::string>{"fused", "75.00 %", "75.00 %", "73.33 %", "75.00 %",
                                               "74.17 %"}));
  result.coarse_from_fine = true;
  EXPECT_EQ(CoarseSummaryRows(result)[0][0], "groups (of the fine classes)");
  const auto metrics = NamedMetrics(result);
  ASSERT_EQ(metrics.size(), 18U);
  EXPECT_EQ(metrics[16].first, "coarse_top1/fused");
  EXPECT_DOUBLE_EQ(metrics[16].second, 0.75);
  EXPECT_EQ(metrics[17].first, "coarse_macro_f1/fused");
}

TEST_F(ResultsTest, ScoresOfCoarseClassifiersAreInTheNpz) {
  EvaluationResult result = WithGroups();
  WriteScores(Path("scores.npz"), result);
  const NpzArrays arrays = ReadNpz(Path("scores.npz"));
  EXPECT_EQ(arrays.at("coarse_labels").ToInts("labels"), (std::vector<int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(arrays.at("scores_coarse_rgb").shape, (std::vector<int64_t>{4, 2}));
  result.coarse_from_fine = true;
  WriteScores(Path("scores.npz"), result);
  EXPECT_EQ(ReadNpz(Path("scores.npz")).count("coarse_labels"), 0U);
}

TEST_F(ResultsTest, SubmissionHasTheBestClassesAndGroups) {
  EvaluationResult result = WithGroups();
  const TextRows rows = SubmissionRows(result, {"a.mp4", "b.mp4", "c.mp4", "d.mp4"});
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[0], (std::vector<std::string>{"vid", "action_pred_1", "action_pred_2",
                                               "action_pred_3", "body_pred_1", "body_pred_2"}));
  EXPECT_EQ(rows[1], (std::vector<std::string>{"a.mp4", "0", "1", "2", "0", "1"}));
  EXPECT_EQ(rows[3], (std::vector<std::string>{"c.mp4", "1", "0", "2", "1", "0"}));  // 0.2, 1.6, 0.2
  EXPECT_THROW(SubmissionRows(HandMade(), {}), Error);
}

struct Rgb {
  int r, g, b;
};

// The picture as libpng reads it back.
struct Picture {
  png_image header{};
  std::vector<uint8_t> pixels;
  Rgb at(int x, int y) const {
    const size_t i = (static_cast<size_t>(y) * header.width + x) * 3;
    return {pixels[i], pixels[i + 1], pixels[i + 2]};
  }
};

Picture ReadPicture(const std::string& path) {
  Picture picture;
  picture.header.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_file(&picture.header, path.c_str()), 0);
  picture.header.format = PNG_FORMAT_RGB;
  picture.pixels.resize(PNG_IMAGE_SIZE(picture.header));
  EXPECT_NE(png_image_finish_read(&picture.header, nullptr, picture.pixels.data(), 0, nullptr), 0);
  return picture;
}

TEST_F(ResultsTest, ConfusionPictureIsReadableAndDarkOnTheDiagonal) {
  // A perfect classifier of eight classes.
  std::vector<int64_t> matrix(64, 0);
  for (int i = 0; i < 8; ++i) matrix[i * 9] = 10;
  WriteConfusionPng(Path("c.png"), matrix, {"one", "two", "three", "挥手"}, "title");
  const Picture picture = ReadPicture(Path("c.png"));
  const cv::Mat drawn = DrawConfusionMatrix(matrix, {"one", "two", "three", "挥手"}, "title");
  ASSERT_EQ(static_cast<int>(picture.header.width), drawn.cols);
  ASSERT_EQ(static_cast<int>(picture.header.height), drawn.rows);
  EXPECT_TRUE(std::equal(drawn.datastart, drawn.dataend, picture.pixels.begin()));
  // The darkest colour fills eight cells of 56x56 pixels, but for the counts in them.
  int64_t dark = 0;
  for (uint32_t y = 0; y < picture.header.height; ++y) {
    for (uint32_t x = 0; x < picture.header.width; ++x) {
      const Rgb pixel = picture.at(static_cast<int>(x), static_cast<int>(y));
      if (pixel.r == 8 && pixel.g == 48 && pixel.b == 107) ++dark;
    }
  }
  EXPECT_GT(dark, 8 * 55 * 55 * 8 / 10);
  EXPECT_LT(dark, 8 * 56 * 56);
}

TEST_F(ResultsTest, ConfusionPicturesOfManySizes) {
  for (const int classes : {1, 2, 60, 400}) {
    const std::vector<int64_t> matrix(static_cast<size_t>(classes) * classes, 1);
    const cv::Mat drawn = DrawConfusionMatrix(matrix, {}, "t");
    EXPECT_GT(drawn.cols, classes * 14);
    EXPECT_LT(drawn.cols, 8000);
  }
  EXPECT_THROW(DrawConfusionMatrix({1, 2}, {}, ""), Error);
  EXPECT_THROW(DrawConfusionMatrix({}, {}, ""), Error);
}

}  // namespace
}  // namespace kinefit
