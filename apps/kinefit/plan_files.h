#pragma once

#include <string>
#include <vector>

#include "memory/plan.h"
#include "train/measure_step.h"

namespace kinefit {

// A plan's report for machines: one JSON object, bytes as integers; with "calibration" if something
// was to be measured.
std::string PlanJson(const PlanReport& report, const std::vector<CalibratedPlan>& calibration);

// Memory over one step as written, with the budget and, if another plan was chosen, that one's
// curve: a picture that stands alone.
std::string PlanSvg(const PlanReport& report);

// The picture, the breakdown and the table of plans on one page that needs no other file.
std::string PlanHtml(const PlanReport& report);

}  // namespace kinefit
