#include "apps/kinefit/command_line_error.h"

#include <algorithm>

#include "config/nearest_key.h"

namespace kinefit {
namespace {

// The subcommand that the words lead to, and the first word behind its name.
struct Reached {
  const CLI::App* app;
  std::string name;  // "kinefit data check"
  size_t next = 0;
};

std::vector<const CLI::App*> Subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

Reached Follow(const CLI::App& app, const std::vector<std::string>& words) {
  Reached reached{&app, "kinefit", 0};
  while (reached.next < words.size()) {
    const std::vector<const CLI::App*> known = Subcommands(*reached.app);
    const auto found = std::find_if(known.begin(), known.end(), [&](const CLI::App* command) {
      return command->get_name() == words[reached.next];
    });
    if (found == known.end()) break;
    reached.app = *found;
    reached.name += " " + words[reached.next++];
  }
  return reached;
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

std::string Suggestion(const std::string& word, const std::vector<std::string>& known,
                       const std::string& otherwise) {
  std::string text;
  for (const std::string& near : NearestKeys(word, known)) {
    text += (text.empty() ? "did you mean " : " or ") + near;
  }
  return (text.empty() ? "" : text + "? ") + otherwise;
}

}  // namespace

Error CommandLineError(const CLI::App& app, const CLI::ParseError& error,
                       const std::vector<std::string>& words) {
  const Reached reached = Follow(app, words);
  const std::string help = "`" + reached.name + " --help` lists ";
  const bool group = !Subcommands(*reached.app).empty();
  if (group && (reached.next >= words.size() || words[reached.next][0] != '-')) {
    std::vector<std::string> names;
    for (const CLI::App* command : Subcommands(*reached.app)) names.push_back(command->get_name());
    if (reached.next >= words.size()) {
      return Error("a command is missing", reached.name, help + "them");
    }
    return Error("unknown command \"" + words[reached.next] + "\"", reached.name,
                 Suggestion(words[reached.next], names, "(" + help + "them)"));
  }
  const std::vector<std::string> options = OptionNames(*reached.app);
  const bool extras = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
  for (size_t i = reached.next; i < words.size() && extras; ++i) {
    const std::string word = words[i].substr(0, words[i].find('='));
    const bool option = word.size() > 1 && word[0] == '-' && (word[1] < '0' || word[1] > '9');
    if (!option || std::find(options.begin(), options.end(), word) != options.end()) continue;
    const bool short_name = word[1] != '-' && std::find(options.begin(), options.end(),
                                                        word.substr(0, 2)) != options.end();
    if (short_name) continue;  // "-k4"
    return Error("unknown option \"" + word + "\"", reached.name,
                 Suggestion(word, options, "(" + help + "all)"));
  }
  std::string problem = error.what();
  const size_t end = problem.find_last_not_of(" \n");
  return Error(problem.substr(0, end + 1), reached.name, help + "what it takes");
}

}  // namespace kinefit
