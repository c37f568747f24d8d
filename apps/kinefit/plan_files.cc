#include "apps/kinefit/plan_files.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "memory/format_plan.h"

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

// The picture's plane, in pixels.
constexpr double kWidth = 960;
constexpr double kHeight = 360;
constexpr double kLeft = 90;
constexpr double kRight = 20;
constexpr double kTop = 30;
constexpr double kBottom = 40;

std::vector<std::pair<const char*, int64_t>> Roles(const Rehearsal& r) {
  return {{"activations kept for the backward pass", r.saved},
          {"temporaries", r.temporaries},
          {"convolutions' workspace", r.workspace},
          {"weights and batch-norm statistics", r.weights},
          {"gradients", r.gradients},
          {"optimizer state and averaged weights", r.optimizer},
          {"input batch", r.input},
          {"prefetched batches", r.prefetch}};
}

Json ToJson(const Rehearsal& r) {
  Json json;
  json["peak_bytes"] = r.peak;
  json["need_bytes"] = r.need();
  json["validation_peak_bytes"] = r.validation_peak;
  json["reserved_bytes"] = r.reserved;
  json["outside_bytes"] = r.outside;
  for (const auto& [role, bytes] : Roles(r)) json["at_peak"][role] = bytes;
  json["layers_at_peak"] = Json::array();
  for (const Rehearsal::Layer& layer : r.layers) {
    json["layers_at_peak"].push_back({{"layer", layer.name}, {"bytes", layer.bytes}});
  }
  json["curve_bytes"] = r.curve;
  return json;
}

Json ToJson(const Plan& plan) {
  return {{"batch_size", plan.batch_size},
          {"accumulate", plan.accumulate},
          {"recompute", plan.recompute},
          {"precision", plan.precision},
          {"eval_batch_size", plan.eval_batch_size},
          {"peak_bytes", plan.peak},
          {"need_bytes", plan.need},
          {"relative_time", plan.time},
          {"changes", plan.changes},
          {"fits", plan.fits}};
}

// What was measured of each plan, by its name; times relative to the plan as written.
Json ToJson(const std::vector<CalibratedPlan>& plans) {
  Json json;
  const CalibratedPlan& reference = plans.front();
  for (const CalibratedPlan& entry : plans) {
    Json& item = json[entry.name == "as written" ? "as_written" : entry.name];
    item = {{"predicted_peak_bytes", entry.plan.peak},
            {"predicted_relative_time", entry.plan.time / reference.plan.time}};
    if (!entry.not_run.empty()) {
      item["not_run"] = entry.not_run;
      continue;
    }
    item["measured_peak_bytes"] = entry.measured.peak;
    item["error_percent"] = 100 * entry.error();
    item["seconds_per_step"] = entry.measured.seconds;
    if (reference.not_run.empty()) {
      item["measured_relative_time"] = entry.measured.seconds / reference.measured.seconds;
    }
  }
  return json;
}

std::string Escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

double Y(double bytes, double most) {
  return kTop + (kHeight - kTop - kBottom) * (1 - bytes / most);
}

// The points of a curve from left to right.
std::string Points(const std::vector<int64_t>& curve, double most) {
  std::string points;
  const double step =
      (kWidth - kLeft - kRight) / static_cast<double>(std::max<size_t>(curve.size(), 2) - 1);
  for (size_t i = 0; i < curve.size(); ++i) {
    points += Number(kLeft + step * static_cast<double>(i)) + "," +
              Number(Y(static_cast<double>(curve[i]), most)) + " ";
  }
  return points;
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text) {
  return "<text x=\"" + Number(x) + "\" y=\"" + Number(y) + "\" text-anchor=\"" + anchor + "\">" +
         Escaped(text) + "</text>\n";
}

std::string Named(const Plan& plan) {
  return std::to_string(plan.batch_size) + " x " + std::to_string(plan.accumulate) + " clips, " +
         plan.recompute + ", " + BytesText(plan.need);
}

bool ChoseAnother(const PlanReport& report) { return report.chosen >= 0 && !report.fits(); }

}  // namespace

std::string PlanJson(const PlanReport& report, const std::vector<CalibratedPlan>& calibration) {
  Json json;
  json["device"] = report.device;
  json["memory_bytes"] = report.request.budget;
  json["budget_bytes"] = report.budget;
  json["fits"] = report.fits();
  json["effective_batch"] = report.effective_batch;
  json["lr"] = report.lr;
  json["as_written"] = ToJson(report.as_written);
  json["rehearsal"] = ToJson(report.rehearsal);
  json["largest_batch"] = report.largest_batch;
  json["largest_batch_tried"] = report.largest_tried;
  json["plans"] = Json::array();
  for (const Plan& plan : report.plans) json["plans"].push_back(ToJson(plan));
  json["chosen"] = report.chosen < 0 ? Json() : Json(report.chosen);  // index into plans
  json["rehearsals"] = report.rehearsals;
  json["seconds"] = report.seconds;
  if (!calibration.empty()) json["calibration"] = ToJson(calibration);
  return json.dump(2) + "\n";
}

std::string PlanSvg(const PlanReport& report) {
  int64_t most = report.budget;
  for (const int64_t bytes : report.rehearsal.curve) most = std::max(most, bytes);
  const double scale = static_cast<double>(std::max<int64_t>(most, 1)) * 1.05;
  std::ostringstream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << " " << kHeight
      << "\" font-family=\"sans-serif\" font-size=\"13\">\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  const double floor = Y(0, scale);
  svg << "<polygon fill=\"#9ecae1\" stroke=\"#3182bd\" points=\"" << Number(kLeft) << ","
      << Number(floor) << " " << Points(report.rehearsal.curve, scale) << Number(kWidth - kRight)
      << "," << Number(floor) << "\"/>\n";
  if (ChoseAnother(report)) {
    svg << "<polyline fill=\"none\" stroke=\"#31a354\" stroke-width=\"2\" points=\""
        << Points(report.chosen_rehearsal.curve, scale) << "\"/>\n"
        << "<g fill=\"#31a354\">"
        << Text(kWidth - kRight, 18, "end",
                "chosen: " + Named(report.plans[static_cast<size_t>(report.chosen)]))
        << "</g>\n";
  }
  const double limit = Y(static_cast<double>(report.budget), scale);
  svg << "<line x1=\"" << Number(kLeft) << "\" x2=\"" << Number(kWidth - kRight) << "\" y1=\""
      << Number(limit) << "\" y2=\"" << Number(limit)
      << "\" stroke=\"#de2d26\" stroke-dasharray=\"6 4\"/>\n"
      << Text(kLeft - 6, limit + 4, "end", BytesText(report.budget))
      << Text(kLeft - 6, Y(static_cast<double>(report.rehearsal.peak), scale) + 18, "end",
              BytesText(report.rehearsal.peak))
      << Text(kLeft - 6, floor + 4, "end", "0")
      << Text((kLeft + kWidth) / 2, kHeight - 12, "middle", "one step: forward, backward, update")
      << "<g fill=\"#3182bd\">"
      << Text(kLeft, 18, "start", "as written: " + Named(report.as_written)) << "</g>\n</svg>\n";
  return svg.str();
}

std::string PlanHtml(const PlanReport& report) {
  std::ostringstream page;
  page << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kinefit plan"
          "</title>\n<style>body{font-family:sans-serif;max-width:60em;margin:2em auto}"
          "td,th{padding:.2em .8em;text-align:left}tr.chosen{background:#e5f5e0}"
          "tr.no{color:#999}</style></head><body>\n<h1>Memory of a training step</h1>\n<p>"
       << Escaped(PlanParagraph(report)) << "</p>\n"
       << PlanSvg(report) << "<h2>At the peak</h2>\n<table>\n";
  for (const auto& [role, bytes] : Roles(report.rehearsal)) {
    page << "<tr><td>" << Escaped(role) << "</td><td>" << BytesText(bytes) << "</td></tr>\n";
  }
  page << "</table>\n<h2>Plans that train the same</h2>\n<table>\n<tr><th>micro-batch</th><th>"
          "recompute</th><th>precision</th><th>needs</th><th>time</th><th>what it changes</th>"
          "</tr>\n";
  for (size_t i = 0; i < report.plans.size(); ++i) {
    const Plan& plan = report.plans[i];
    const char* kind =
        static_cast<int>(i) == report.chosen ? "chosen" : (plan.fits ? "fits" : "no");
    std::string changes;
    for (const std::string& change : plan.changes)
      changes += (changes.empty() ? "" : ", ") + change;
    char time[16];
    std::snprintf(time, sizeof(time), "%.2f", plan.time);
    page << "<tr class=\"" << kind << "\"><td>" << plan.batch_size << " &times; " << plan.accumulate
         << "</td><td>" << Escaped(plan.recompute) << "</td><td>" << Escaped(plan.precision)
         << "</td><td>" << BytesText(plan.need) << "</td><td>" << time << "</td><td>"
         << (changes.empty() ? "nothing" : Escaped(changes)) << "</td></tr>\n";
  }
  page << "</table>\n</body></html>\n";
  return page.str();
}

}  // namespace kinefit
