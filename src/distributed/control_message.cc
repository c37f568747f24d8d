#include "distributed/control_message.h"

#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kVersion = 1;
constexpr int64_t kMostRanks = 1 << 20;
constexpr size_t kMostText = 600;
constexpr size_t kMostHost = 255;

constexpr std::array<std::pair<ControlKind, const char*>, 8> kKinds = {{
    {ControlKind::kJoin, "join"},
    {ControlKind::kRound, "round"},
    {ControlKind::kFailed, "failed"},
    {ControlKind::kEnded, "ended"},
    {ControlKind::kOver, "over"},
    {ControlKind::kSignal, "signal"},
    {ControlKind::kAlive, "alive"},
    {ControlKind::kRefused, "refused"},
}};

const char* NameOf(ControlKind kind) {
  for (const auto& [known, name] : kKinds) {
    if (known == kind) return name;
  }
  return "";
}

// Reads the fields of one message and remembers the first thing that is wrong.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  void Number(const char* name, int64_t low, int64_t high, int64_t* value) {
    const auto found = json_.find(name);
    if (found == json_.end() || !found->is_number_integer()) return Wrong(name, "no whole number");
    // As unsigned numbers come above what int64_t holds.
    if (found->is_number_unsigned() && found->get<uint64_t>() > static_cast<uint64_t>(high)) {
      return Wrong(name, "out of range");
    }
    const auto number = found->get<int64_t>();
    if (number < low || number > high) return Wrong(name, "out of range");
    *value = number;
  }
  void Number(const char* name, int64_t low, int64_t high, int* value) {
    int64_t number = *value;
    Number(name, low, high, &number);
    *value = static_cast<int>(number);
  }
  void Text(const char* name, size_t most, std::string* value) {
    const auto found = json_.find(name);
    if (found == json_.end() || !found->is_string()) return Wrong(name, "no text");
    const auto& text = found->get_ref<const std::string&>();
    // What is no UTF-8 is sent as replacement characters, of three bytes each.
    if (text.size() > 3 * most) return Wrong(name, "too long");
    *value = PlainLine(text, most);
  }
  void Flag(const char* name, bool* value) {
    const auto found = json_.find(name);
    if (found == json_.end() || !found->is_boolean()) return Wrong(name, "neither true nor false");
    *value = found->get<bool>();
  }
  const std::string& problem() const { return problem_; }

 private:
  void Wrong(const char* name, const char* what) {
    if (problem_.empty()) problem_ = std::string("\"") + name + "\" is " + what;
  }
  const Json& json_;
  std::string problem_;
};

void ReadFailure(Fields* fields, RankFailure* failure) {
  fields->Number("rank", -1, kMostRanks, &failure->rank);
  fields->Number("step", -1, INT64_MAX, &failure->step);
  fields->Number("exit_code", 0, 255, &failure->exit_code);
  fields->Text("host", kMostHost, &failure->host);
  fields->Text("phase", kMostText, &failure->phase);
  fields->Text("why", kMostText, &failure->why);
  fields->Text("last", kMostText, &failure->last);
  fields->Text("log", kMostText, &failure->log);
  fields->Flag("again", &failure->again);
  fields->Flag("peer_lost", &failure->peer_lost);
}

void ReadFields(Fields* fields, ControlMessage* message) {
  switch (message->kind) {
    case ControlKind::kJoin:
      fields->Number("nodes", 1, kMostRanks, &message->nodes);
      fields->Number("node", 1, kMostRanks, &message->node);
      fields->Number("ranks", 1, kMostRanks, &message->ranks);
      fields->Text("host", kMostHost, &message->host);
      break;
    case ControlKind::kRound:
      fields->Number("start", 0, INT64_MAX, &message->start);
      fields->Number("world", 1, kMostRanks, &message->world);
      fields->Number("wanted_world", 1, kMostRanks, &message->wanted_world);
      fields->Number("ranks", 0, kMostRanks, &message->ranks);
      fields->Number("first_rank", 0, kMostRanks, &message->first_rank);
      fields->Number("port", 1, 65535, &message->port);
      break;
    case ControlKind::kFailed:
      fields->Number("start", 0, INT64_MAX, &message->start);
      ReadFailure(fields, &message->failure);
      break;
    case ControlKind::kEnded:
      fields->Number("start", 0, INT64_MAX, &message->start);
      fields->Number("exit_code", 0, 255, &message->exit_code);
      break;
    case ControlKind::kOver:
      fields->Number("exit_code", 0, 255, &message->exit_code);
      fields->Text("text", kMostText, &message->text);
      break;
    case ControlKind::kSignal:
      fields->Number("exit_code", 1, 64, &message->exit_code);
      break;
    case ControlKind::kAlive:
      break;
    case ControlKind::kRefused:
      fields->Text("text", kMostText, &message->text);
      break;
  }
}

void WriteFields(const ControlMessage& message, size_t most, Json* json) {
  const auto text = [&](const std::string& words) { return PlainLine(words, most); };
  Json& to = *json;
  switch (message.kind) {
    case ControlKind::kJoin:
      to["nodes"] = message.nodes;
      to["node"] = message.node;
      to["ranks"] = message.ranks;
      to["host"] = PlainLine(message.host, kMostHost);
      break;
    case ControlKind::kRound:
      to["start"] = message.start;
      to["world"] = message.world;
      to["wanted_world"] = message.wanted_world;
      to["ranks"] = message.ranks;
      to["first_rank"] = message.first_rank;
      to["port"] = message.port;
      break;
    case ControlKind::kFailed:
      to["start"] = message.start;
      to["rank"] = message.failure.rank;
      to["step"] = message.failure.step;
      to["exit_code"] = message.failure.exit_code;
      to["host"] = PlainLine(message.failure.host, kMostHost);
      to["phase"] = text(message.failure.phase);
      to["why"] = text(message.failure.why);
      to["last"] = text(message.failure.last);
      to["log"] = text(message.failure.log);
      to["again"] = message.failure.again;
      to["peer_lost"] = message.failure.peer_lost;
      break;
    case ControlKind::kEnded:
      to["start"] = message.start;
      to["exit_code"] = message.exit_code;
      break;
    case ControlKind::kOver:
      to["exit_code"] = message.exit_code;
      to["text"] = text(message.text);
      break;
    case ControlKind::kSignal:
      to["exit_code"] = message.exit_code;
      break;
    case ControlKind::kAlive:
      break;
    case ControlKind::kRefused:
      to["text"] = text(message.text);
      break;
  }
}

}  // namespace

std::string FormatControlMessage(const ControlMessage& message) {
  // Text in which everything is escaped grows sixfold; then shorter text has to do.
  for (size_t most = kMostText;; most /= 2) {
    Json json = {{"kinefit_launch", kVersion}, {"kind", NameOf(message.kind)}};
    WriteFields(message, most, &json);
    std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    if (line.size() <= kMostControlBytes) return line;
  }
}

std::optional<ControlMessage> ParseControlMessage(std::string_view line, std::string* problem) {
  const auto refuse = [&](const std::string& why) {
    *problem = why;
    return std::nullopt;
  };
  if (line.size() >= kMostControlBytes) return refuse("it is too long");
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return refuse("it is no JSON object");
  Fields fields(json);
  int64_t version = 0;
  fields.Number("kinefit_launch", 0, INT64_MAX, &version);
  if (!fields.problem().empty()) return refuse("it is not from kinefit launch");
  if (version != kVersion) {
    return refuse("it is of version " + std::to_string(version) + ", this one speaks " +
                  std::to_string(kVersion) + ": use the same kinefit on all nodes");
  }
  std::string kind;
  fields.Text("kind", 32, &kind);
  ControlMessage message;
  bool known = false;
  for (const auto& [value, name] : kKinds) {
    if (kind != name) continue;
    message.kind = value;
    known = true;
  }
  if (!known) return refuse("its \"kind\" is not known");
  ReadFields(&fields, &message);
  if (!fields.problem().empty()) return refuse(fields.problem());
  return message;
}

}  // namespace kinefit
