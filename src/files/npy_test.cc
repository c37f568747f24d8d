#include "files/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "files/error.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

TEST(Half, KnownValues) {
  EXPECT_EQ(HalfToFloat(0x3C00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xC000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7BFF), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), std::ldexp(1.0f, -24));
  EXPECT_TRUE(std::isinf(HalfToFloat(0x7C00)));
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7E00)));
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7BFF);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(FloatToHalf(1.0f + std::ldexp(1.0f, -11)), 0x3C00);  // a tie goes to even
  EXPECT_EQ(FloatToHalf(1.0f + std::ldexp(3.0f, -11)), 0x3C02);
  EXPECT_EQ(FloatToHalf(std::ldexp(1.0f, -25)), 0x0000);
  EXPECT_EQ(FloatToHalf(std::ldexp(1.5f, -25)), 0x0001);
}

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      EXPECT_EQ(FloatToHalf(value), half);
    }
  }
}

TEST(NdArray, ConvertsAndChecks) {
  EXPECT_EQ(NdArray::FromFloats({2, 1}, {1.5f, -3}).ToDoubles(), (std::vector<double>{1.5, -3}));
  EXPECT_EQ(NdArray::FromDoubles({2}, {4, -3}).ToInts("x"), (std::vector<int64_t>{4, -3}));
  EXPECT_THROW(NdArray::FromDoubles({1}, {0.5}).ToInts("x"), Error);
  EXPECT_THROW(NdArray::FromDoubles({1}, {std::nan("")}).ToInts("x"), Error);
  EXPECT_THROW(NdArray::FromDoubles({1}, {1e300}).ToInts("x"), Error);
  EXPECT_THROW(NdArray::FromFloats({3}, {1, 2}), Error);
  EXPECT_EQ(NdArray::FromInts({2, 3}, {1, 2, 3, 4, 5, 6}).ShapeText(), "[2, 3]");
}

TEST(NdArray, SizesAreChecked) {
  EXPECT_EQ(CheckedByteSize({2, 3}, DType::kFloat32, "x"), 24u);
  EXPECT_EQ(CheckedByteSize({}, DType::kFloat64, "x"), 8u);
  EXPECT_EQ(CheckedByteSize({0, int64_t{1} << 50}, DType::kFloat64, "x"), 0u);
  EXPECT_THROW(CheckedByteSize({-1}, DType::kFloat32, "x"), Error);
  EXPECT_THROW(CheckedByteSize({int64_t{1} << 32, int64_t{1} << 32}, DType::kBool, "x"), Error);
}

TEST(Npy, RoundTrip) {
  for (const NdArray& array :
       {NdArray::FromFloats({2, 3}, {1, 2, 3, 4, 5, 6}), NdArray::FromInts({}, {7}),
        NdArray::FromBytes({3}, {1, 2, 255}), NdArray::FromDoubles({0, 4}, {})}) {
    const std::string bytes = EncodeNpy(array.view());
    EXPECT_EQ((bytes.size() - array.bytes.size()) % 64, 0u);
    const NdArray back = ParseNpy(bytes, "x.npy");
    EXPECT_EQ(back.dtype, array.dtype);
    EXPECT_EQ(back.shape, array.shape);
    EXPECT_EQ(back.bytes, array.bytes);
  }
}

TEST(Npy, CutOffOrChangedIsAnErrorOrAnArray) {
  const std::string whole = EncodeNpy(NdArray::FromFloats({2, 3}, {1, 2, 3, 4, 5, 6}).view());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(ParseNpy(whole.substr(0, size), "x.npy"), Error) << size;
  }
  for (size_t at = 0; at < 80; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = whole;
      changed[at] = static_cast<char>(value);
      try {
        const NdArray array = ParseNpy(changed, "x.npy");
        EXPECT_EQ(array.bytes.size(), CheckedByteSize(array.shape, array.dtype, "x"));
      } catch (const Error&) {
      }
    }
  }
}

TEST(Npy, HostileHeaders) {
  const auto with_header = [](const std::string& header) {
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes.push_back(static_cast<char>(header.size() & 0xFF));
    bytes.push_back(static_cast<char>(header.size() >> 8));
    return bytes + header + std::string(8, '\0');
  };
  const auto parse = [&](const std::string& header) {
    return ParseNpy(with_header(header), "x.npy");
  };
  EXPECT_EQ(parse("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }").numel(), 1);
  EXPECT_EQ(parse("{\"shape\":(1L,),\"descr\":\">f8\",\"fortran_order\":True}").numel(), 1);
  for (const char* bad : {
           "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
           "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }",
           "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
           "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }",
           "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
           "{'descr': '<f8', 'fortran_order': False, }",
           "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': '1'}",
           "{'descr': '<f8', 'fortran_order': __import__('os'), 'shape': (1,)}",
           "{'descr': '<f8",
           "",
       }) {
    EXPECT_THROW(parse(bad), Error) << bad;
  }
}

TEST(Npz, RoundTrip) {
  TestFolder folder;
  NpzArrays arrays;
  arrays["imgs"] = NdArray::FromFloats({1, 2}, {1, 2});
  arrays["grad/backbone.weight"] = NdArray::FromInts({1}, {int64_t{1} << 40});
  WriteNpz(folder.File("x.npz"), arrays);
  const NpzArrays back = ReadNpz(folder.File("x.npz"));
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back.at("imgs").ToFloats(), (std::vector<float>{1, 2}));
  EXPECT_EQ(back.at("grad/backbone.weight").ToInts("x")[0], int64_t{1} << 40);
}

TEST(Npz, PythonReadsItAndWeReadPython) {
  SKIP_WITHOUT_PYTHON("numpy");
  TestFolder folder;
  NpzArrays arrays;
  arrays["a"] = NdArray::FromFloats({2, 2}, {1, 2, 3, 4});
  arrays["n"] = NdArray::FromInts({}, {5});
  WriteNpz(folder.File("ours.npz"), arrays);
  RunPython("import numpy as np\nz = np.load('" + folder.File("ours.npz") +
            "')\n"
            "assert z['a'].dtype == np.float32 and z['a'].tolist() == [[1, 2], [3, 4]]\n"
            "assert int(z['n']) == 5\n"
            "a = np.asfortranarray(np.arange(10000, dtype='>i2').reshape(100, 100))\n"
            "np.savez_compressed('" +
            folder.File("packed.npz") + "', a=a, h=np.float16([0.5]), b=np.array([True]))\n" +
            "np.save('" + folder.File("one.npy") + "', a)");
  const NpzArrays packed = ReadNpz(folder.File("packed.npz"));
  const std::vector<int64_t> values = packed.at("a").ToInts("a");
  ASSERT_EQ(values.size(), 10000u);
  for (int64_t i = 0; i < 10000; ++i) ASSERT_EQ(values[static_cast<size_t>(i)], i);
  EXPECT_EQ(packed.at("h").ToFloats()[0], 0.5f);
  EXPECT_EQ(packed.at("b").ToInts("b")[0], 1);
  EXPECT_EQ(ReadNpy(folder.File("one.npy")).ToInts("a"), values);
}

TEST(Npz, ReadsTheParityArrays) {
#ifdef KINEFIT_SHARED
  const std::string path = std::string(KINEFIT_SHARED) + "/parity/rgbpose_tiny_io.npz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "NOT CHECKED: " << path << " is absent";
  const NpzArrays arrays = ReadNpz(path);
  EXPECT_GT(arrays.size(), 100u);
#else
  GTEST_SKIP() << "NOT CHECKED: built without the parity arrays";
#endif
}

}  // namespace
}  // namespace kinefit
