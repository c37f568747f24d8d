# Every library from outside, as one imported target each. What they are for: docs/dependencies.md.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

include(cmake/libtorch.cmake)

pkg_check_modules(FFMPEG REQUIRED IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)

# OpenCV: core and imgproc only; its CMake package demands every module to be installed.
find_library(OPENCV_CORE opencv_core REQUIRED)
find_library(OPENCV_IMGPROC opencv_imgproc REQUIRED)
find_path(OPENCV_INCLUDE opencv2/core.hpp PATH_SUFFIXES opencv4 REQUIRED)
add_library(kinefit_opencv INTERFACE)
target_include_directories(kinefit_opencv SYSTEM INTERFACE ${OPENCV_INCLUDE})
target_link_libraries(kinefit_opencv INTERFACE ${OPENCV_IMGPROC} ${OPENCV_CORE})

find_package(tomlplusplus REQUIRED)
find_package(fmt REQUIRED)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_path(NLOHMANN_INCLUDE nlohmann/json.hpp REQUIRED)
find_package(GTest REQUIRED)
