#include "apps/kinefit/summary.h"

#include <nlohmann/json.hpp>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {

void WriteSummary(const std::string& path, const std::vector<StreamSummary>& streams,
                  size_t samples) {
  nlohmann::ordered_json json;
  json["samples"] = samples;
  for (const StreamSummary& stream : streams) {
    json["streams"][stream.stream] = {
        {"top1", stream.top1}, {"top5", stream.top5}, {"mean_class", stream.mean_class}};
  }
  PublishFile(path, json.dump(2) + "\n");
}

Summary ReadSummary(const std::string& path) {
  const std::string text = ReadFile(path);
  try {
    const auto json = nlohmann::ordered_json::parse(text);
    Summary summary;
    summary.samples = json.at("samples").get<size_t>();
    for (const auto& [name, values] : json.at("streams").items()) {
      summary.streams.push_back({name, values.at("top1").get<double>(),
                                 values.at("top5").get<double>(),
                                 values.at("mean_class").get<double>()});
    }
    return summary;
  } catch (const nlohmann::json::exception& error) {
    throw Error(std::string("not a summary of `kinefit test`: ") + error.what(), path,
                "run `kinefit test ... --out DIR` again");
  }
}

}  // namespace kinefit
