#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace kinefit {

// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`; case and "-" versus "_"
// cost nothing. Optimal string alignment distance.
size_t EditDistance(const std::string& a, const std::string& b);

// The known dotted keys a mistyped one most likely meant, at most three, all equally near: compared
// as a whole ("trian.epochs") and by last component alone ("train.lr" -> "train.optimizer.lr").
// Empty if nothing is near.
std::vector<std::string> NearestKeys(const std::string& key, const std::vector<std::string>& known);

}  // namespace kinefit
