#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace kinefit {

// A confusion matrix as a picture: rows are labels, columns predictions, a cell's colour the share
// of its row, with counts (up to 130 classes), each row's recall and a
// colour scale. RGB, CV_8UC3. `matrix` [C, C] as ConfusionMatrix returns it. The font knows ASCII
// only: a class whose name is not ASCII is written as its number.
cv::Mat DrawConfusionMatrix(const std::vector<int64_t>& matrix,
                            const std::vector<std::string>& class_names, const std::string& title);

// The same as a PNG, published atomically. Throws Error.
void WriteConfusionPng(const std::string& path, const std::vector<int64_t>& matrix,
                       const std::vector<std::string>& class_names, const std::string& title);

}  // namespace kinefit
