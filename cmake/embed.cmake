# kinefit_embed(OUT HEADER header FUNCTION name FILES …)
#
# Makes a source that defines `const std::vector<EmbeddedFile>& name()` (files/embedded.h), declared
# in `header`: the texts of the files under their names without extension. So what the program needs
# at run time has one place in configs/, and the program needs no folder beside it. OUT is set to
# the source's path.
function(kinefit_embed out)
  cmake_parse_arguments(ARG "" "HEADER;FUNCTION" "FILES" ${ARGN})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${ARG_FUNCTION}.cc)
  set(text "#include \"${ARG_HEADER}\"\n\nnamespace kinefit {\n\n")
  string(APPEND text "const std::vector<EmbeddedFile>& ${ARG_FUNCTION}() {\n"
    "  static const std::vector<EmbeddedFile> files = {\n")
  foreach(file IN LISTS ARG_FILES)
    get_filename_component(name ${file} NAME_WE)
    file(READ ${file} content)
    string(APPEND text "{\"${name}\", R\"embedded(${content})embedded\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  string(APPEND text "  };\n  return files;\n}\n\n}  // namespace kinefit\n")
  file(CONFIGURE OUTPUT ${source} CONTENT "${text}" @ONLY)
  set(${out} ${source} PARENT_SCOPE)
endfunction()
