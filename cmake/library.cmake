# kinefit_library(NAME FOLDERS … PACKAGES … [TORCH])
#
# One static library per folder of src/: every .cc of the folder that is not a test. FOLDERS are the
# folders it links to (they must stand above it in DESIGN order), PACKAGES the outside targets.
# TORCH: the folder uses LibTorch and shares its precompiled header. Every *_test.cc beside the
# sources goes into one test program, registered with CTest under the folder's name.

add_library(kinefit_flags INTERFACE)
target_compile_options(kinefit_flags INTERFACE -Wall -Wextra -Wpedantic -Werror
  -fPIC -fpch-preprocess)
if(CMAKE_CXX_STANDARD GREATER 17 AND CMAKE_CXX_COMPILER_ID STREQUAL GNU
    AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms over "text" + std::string in C++20 (GCC's bug 105651).
  target_compile_options(kinefit_flags INTERFACE -Wno-restrict -Wno-stringop-overflow
    -Wno-stringop-overread -Wno-array-bounds)
endif()
if(KINEFIT_SANITIZE)
  target_compile_options(kinefit_flags INTERFACE -fsanitize=${KINEFIT_SANITIZE}
    -fno-omit-frame-pointer)
  target_link_options(kinefit_flags INTERFACE -fsanitize=${KINEFIT_SANITIZE})
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(kinefit_flags INTERFACE -Wno-unused-command-line-argument
    -Wno-unknown-warning-option)
endif()
target_include_directories(kinefit_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)

add_library(kinefit_torch_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/torch_pch.cc)
target_link_libraries(kinefit_torch_pch PRIVATE kinefit_flags kinefit_torch)
target_precompile_headers(kinefit_torch_pch PRIVATE <ATen/ATen.h> <string> <vector> <map>
  <functional> <memory>)
if(TORCH_DIR OR KINEFIT_CUDA)  # ATen.h of 1.13 includes it, of 2.x no longer
  target_precompile_headers(kinefit_torch_pch PRIVATE <ATen/core/grad_mode.h>)
endif()

function(kinefit_library name)
  cmake_parse_arguments(ARG "TORCH" "" "FOLDERS;PACKAGES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(TRANSFORM ARG_FOLDERS PREPEND kinefit_)
  set(target kinefit_${name})
  if(NOT sources)
    add_library(${target} INTERFACE)
    return()
  endif()
  add_library(${target} STATIC ${sources})
  target_link_libraries(${target} PUBLIC kinefit_flags ${ARG_FOLDERS} ${ARG_PACKAGES})
  if(ARG_TORCH)
    target_link_libraries(${target} PUBLIC kinefit_torch)
    target_precompile_headers(${target} REUSE_FROM kinefit_torch_pch)
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE ${target} GTest::gtest GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE KINEFIT_SHARED="${KINEFIT_SHARED}")
    if(ARG_TORCH)
      target_precompile_headers(${name}_test REUSE_FROM kinefit_torch_pch)
    endif()
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES TIMEOUT 600 ENVIRONMENT OMP_WAIT_POLICY=passive)
  endif()
endfunction()
