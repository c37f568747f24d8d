#include "files/pickle.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "files/error.h"
#include "files/python_test.h"

namespace kinefit {
namespace {

Pickle Parse(std::string bytes) { return Pickle::Parse(std::move(bytes), "test.pkl"); }

// Parses what `expression` is in Python, pickled with `protocol`.
Pickle FromPython(const std::string& expression, int protocol) {
  TestFolder folder;
  const std::string path = folder.File("x.pkl");
  RunPython(
      "import pickle, collections, numpy as np\n"
      "class Foreign:\n"
      "  def __init__(self): self.a = [1, 2]\n"
      "pickle.dump(" +
      expression + ", open('" + path + "', 'wb'), protocol=" + std::to_string(protocol) + ")");
  return Pickle::Load(path);
}

std::string Written(PickleWriter* writer) { return writer->Finish(); }

TEST(Pickle, ReadsEveryScalar) {
  PickleWriter w;
  w.BeginList();
  w.None();
  w.Bool(true);
  w.Bool(false);
  for (const int64_t value : {int64_t{0}, int64_t{-1}, int64_t{1} << 31, -(int64_t{1} << 40),
                              std::numeric_limits<int64_t>::min()}) {
    w.Int(value);
  }
  w.Float(-0.1);
  w.String("姿势");
  w.Bytes(std::string("\x00\xff\x80z", 4));
  w.EndList();
  const Pickle pickle = Parse(Written(&w));
  const PickleValue root = pickle.root();
  ASSERT_EQ(root.size(), 11u);
  EXPECT_TRUE(root[0].is_none());
  EXPECT_TRUE(root[1].AsBool("x"));
  EXPECT_FALSE(root[2].AsBool("x"));
  EXPECT_EQ(root[3].AsInt("x"), 0);
  EXPECT_EQ(root[4].AsInt("x"), -1);
  EXPECT_EQ(root[5].AsInt("x"), int64_t{1} << 31);
  EXPECT_EQ(root[6].AsInt("x"), -(int64_t{1} << 40));
  EXPECT_EQ(root[7].AsInt("x"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(root[8].AsFloat("x"), -0.1);
  EXPECT_EQ(root[9].AsString("x"), "姿势");
  EXPECT_EQ(root[10].AsBytes("x"), std::string_view("\x00\xff\x80z", 4));
  EXPECT_EQ(root[10].kind(), PickleKind::kBytes);
}

TEST(Pickle, WrongTypesAreNamed) {
  PickleWriter w;
  w.String("text");
  const Pickle pickle = Parse(Written(&w));
  try {
    pickle.root().AsInt("annotations[3].label");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "annotations[3].label");
    EXPECT_EQ(error.problem(), "expected an int, found str");
  }
  EXPECT_THROW(pickle.root().AsArray("x"), Error);
  EXPECT_EQ(pickle.root().size(), 0u);
  EXPECT_TRUE(pickle.root().Find("a").is_none());
}

TEST(Pickle, OfARepeatedKeyTheLastValueCounts) {
  const Pickle pickle = Parse("}(S'a'\nI1\nS'a'\nI2\nu.");
  EXPECT_EQ(pickle.root().Find("a").AsInt("a"), 2);
  EXPECT_FALSE(pickle.root().Has("b"));
}

class PickleProtocol : public ::testing::TestWithParam<int> {};

TEST_P(PickleProtocol, ReadsWhatPythonWrites) {
  SKIP_WITHOUT_PYTHON("numpy");
  const Pickle pickle = FromPython(
      "dict(none=None, yes=True, n=-7, big=1 << 62, huge=1 << 200, x=2.5, text='a\\n\\u59ff\\'', "
      "raw=bytes(range(256)), empty=b'', t=(1, (2,), ()), s={3}, fs=frozenset([4]), "
      "od=collections.OrderedDict(a=1, b=2), dd=collections.defaultdict(list, k=[9]), "
      "ba=bytearray(b'\\xff\\x00'), again=[[1]] * 2)",
      GetParam());
  const PickleValue root = pickle.root();
  ASSERT_EQ(root.kind(), PickleKind::kDict);
  EXPECT_TRUE(root.Has("none") && root.Find("none").is_none());
  EXPECT_TRUE(root.Find("yes").AsBool("yes"));
  EXPECT_EQ(root.Find("n").AsInt("n"), -7);
  EXPECT_EQ(root.Find("big").AsInt("big"), int64_t{1} << 62);
  EXPECT_EQ(root.Find("huge").kind(), PickleKind::kOpaque);
  EXPECT_EQ(root.Find("x").AsFloat("x"), 2.5);
  EXPECT_EQ(root.Find("text").AsString("text"), "a\n姿'");
  const std::string_view raw = root.Find("raw").AsBytes("raw");
  ASSERT_EQ(raw.size(), 256u);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(static_cast<uint8_t>(raw[i]), i);
  EXPECT_EQ(root.Find("empty").AsBytes("empty"), "");
  EXPECT_EQ(root.Find("t").size(), 3u);
  EXPECT_EQ(root.Find("t")[1][0].AsInt("t"), 2);
  EXPECT_EQ(root.Find("s")[0].AsInt("s"), 3);
  EXPECT_EQ(root.Find("fs")[0].AsInt("fs"), 4);
  EXPECT_EQ(root.Find("od").kind(), PickleKind::kDict);
  EXPECT_EQ(root.Find("od").Find("b").AsInt("b"), 2);
  EXPECT_EQ(root.Find("dd").Find("k")[0].AsInt("k"), 9);
  EXPECT_EQ(root.Find("ba").AsBytes("ba"), std::string_view("\xff\x00", 2));
  EXPECT_EQ(root.Find("again")[0].identity(), root.Find("again")[1].identity());
}

TEST_P(PickleProtocol, ReadsNumpyArraysAndScalars) {
  SKIP_WITHOUT_PYTHON("numpy");
  const Pickle pickle = FromPython(
      "dict(f2=np.arange(6, dtype='f2').reshape(1, 2, 3), big=np.arange(3, dtype='>f4'), "
      "fortran=np.asfortranarray(np.arange(24, dtype='i8').reshape(2, 3, 4)), "
      "flags=np.array([True, False]), zero=np.zeros((0, 17, 2), 'f4'), point=np.array(3.5), "
      "i4=np.int32(-5), f8=np.float64(0.1), b=np.bool_(True), u8=np.uint64(2**63), "
      "words=np.array(['a']), objects=np.array([None, 1], dtype=object))",
      GetParam());
  const PickleValue root = pickle.root();
  const NdArrayView& f2 = root.Find("f2").AsArray("f2");
  EXPECT_EQ(f2.dtype, DType::kFloat16);
  EXPECT_EQ(f2.shape, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(f2.ToFloats(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(root.Find("big").AsArray("big").ToFloats(), (std::vector<float>{0, 1, 2}));
  const std::vector<int64_t> ints = root.Find("fortran").AsArray("fortran").ToInts("fortran");
  ASSERT_EQ(ints.size(), 24u);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(ints[i], i);
  EXPECT_EQ(root.Find("flags").AsArray("flags").ToInts("flags"), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(root.Find("zero").AsArray("zero").ShapeText(), "[0, 17, 2]");
  EXPECT_EQ(root.Find("point").AsArray("point").ToDoubles()[0], 3.5);
  EXPECT_EQ(root.Find("i4").AsInt("i4"), -5);
  EXPECT_EQ(root.Find("f8").AsFloat("f8"), 0.1);
  EXPECT_TRUE(root.Find("b").AsBool("b"));
  EXPECT_EQ(root.Find("u8").kind(), PickleKind::kOpaque);
  EXPECT_EQ(root.Find("words").kind(), PickleKind::kObject);
  EXPECT_EQ(root.Find("objects").kind(), PickleKind::kObject);
}

TEST_P(PickleProtocol, KeepsForeignObjectsOpaque) {
  SKIP_WITHOUT_PYTHON("numpy");
  const Pickle pickle = FromPython("[Foreign(), np.random.RandomState, len]", GetParam());
  const PickleValue root = pickle.root();
  EXPECT_EQ(root[0].kind(), PickleKind::kObject);
  EXPECT_EQ(root[0].State().Find("a")[1].AsInt("a"), 2);
  EXPECT_EQ(root[1].kind(), PickleKind::kGlobal);
  EXPECT_THROW(root[0].AsInt("x"), Error);
}

INSTANTIATE_TEST_SUITE_P(All, PickleProtocol, ::testing::Values(0, 1, 2, 3, 4, 5));

TEST(Pickle, NothingIsExecuted) {
  TestFolder folder;
  const std::string trace = folder.File("trace");
  const Pickle pickle = Parse("cposix\nsystem\n(S'touch " + trace + "'\ntR.");
  EXPECT_EQ(pickle.root().TypeName(), "posix.system");
  EXPECT_THROW(ReadFile(trace), Error);
}

TEST(PickleWriter, PythonReadsIt) {
  SKIP_WITHOUT_PYTHON("numpy");
  for (const int protocol : {2, 3}) {
    TestFolder folder;
    const std::string path = folder.File("x.pkl");
    PickleWriter w(protocol);
    w.BeginDict();
    w.String("label");
    w.Int(3);
    w.String("score");
    w.Float(0.25);
    w.String("big");
    w.Int(-(int64_t{1} << 50));
    w.String("raw");
    w.Bytes(std::string("\x00\xff\x80z", 4));
    w.String("half");
    w.Array(NdArray::FromFloatsAsHalf({1, 2}, {0.5f, -2.0f}).view());
    w.String("single");
    w.Array(NdArray::FromFloats({2}, {0.1f, 1e-30f}).view());
    w.String("long");
    w.Array(NdArray::FromInts({}, {int64_t{1} << 40}).view());
    w.String("list");
    w.BeginList();
    w.BeginTuple();
    w.EndTuple();
    w.EndList();
    w.EndDict();
    PublishFile(path, w.Finish());
    RunPython("import pickle, numpy as np\nd = pickle.load(open('" + path +
              "', 'rb'))\n"
              "assert d['label'] == 3 and d['score'] == 0.25 and d['big'] == -(1 << 50)\n"
              "assert d['raw'] == b'\\x00\\xff\\x80z' and d['list'] == [()]\n"
              "assert d['half'].dtype == np.float16 and d['half'].tolist() == [[0.5, -2.0]]\n"
              "assert d['single'].tolist() == [float(np.float32(0.1)), float(np.float32(1e-30))]\n"
              "assert d['long'].shape == () and int(d['long']) == 1 << 40");
    EXPECT_EQ(Pickle::Load(path).root().Find("half").AsArray("half").ToFloats(),
              (std::vector<float>{0.5f, -2.0f}));
  }
}

// A pickle with about every construct, for the tests of damage.
std::string Sample() {
  PickleWriter w(2);
  w.BeginDict();
  w.String("a");
  w.BeginList();
  w.Int(1);
  w.Float(2);
  w.None();
  w.EndList();
  w.String("keypoint");
  w.Array(NdArray::FromFloatsAsHalf({1, 2, 2}, {1, 2, 3, 400}).view());
  w.String("other");
  w.Global("some.module", "Class");
  w.BeginTuple();
  w.String("id");
  w.PersistentId();
  w.EndTuple();
  w.Reduce();
  w.EndDict();
  return w.Finish();
}

TEST(HostilePickle, CutOffAnywhereIsAnError) {
  const std::string whole = Sample();
  EXPECT_NO_THROW(Parse(whole));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(Parse(whole.substr(0, size)), Error) << size;
  }
}

TEST(HostilePickle, AnyByteChangedNeverCrashes) {
  const std::string whole = Sample();
  int survived = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = whole;
      changed[at] = static_cast<char>(value);
      try {
        Parse(changed);
        ++survived;
      } catch (const Error&) {
      }
    }
  }
  EXPECT_GT(survived, 0);
}

TEST(HostilePickle, DeepNestingIsAnError) {
  EXPECT_THROW(Parse(std::string(1000000, '(') + std::string(1000000, 't') + "."), Error);
  EXPECT_THROW(Parse(")" + std::string(1000000, '\x85') + "."), Error);
  // Reached through the memo, in the order that a naive depth-first walk would not see as deep.
  std::string chain = "]q\x01";
  for (int i = 0; i < 100000; ++i)
    chain +=
        "0]h\x01"
        "aq\x01";
  EXPECT_THROW(Parse(chain + "."), Error);
}

TEST(HostilePickle, SelfReferencesAreCut) {
  const Pickle pickle = Parse(
      "]q\x01h\x01"
      "ah\x01"
      "a.");
  ASSERT_EQ(pickle.root().size(), 2u);
  EXPECT_EQ(pickle.root()[0].kind(), PickleKind::kOpaque);
  EXPECT_EQ(pickle.root()[1].kind(), PickleKind::kOpaque);
}

TEST(HostilePickle, SharedListsAreNotCopied) {
  std::string laughs = "]q\x01";  // 2^100 leaves if it were a tree
  for (int i = 0; i < 100; ++i)
    laughs +=
        "0](h\x01h\x01"
        "eq\x01";
  EXPECT_NO_THROW(Parse(laughs + "."));
}

TEST(HostilePickle, AbsurdSizesAreErrors) {
  EXPECT_THROW(Parse("X\xff\xff\xff\xff"
                     "abc."),
               Error);
  EXPECT_THROW(Parse("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
                     "abc."),
               Error);
  EXPECT_THROW(Parse("\x8b\xff\xff\xff\x7f."), Error);
  EXPECT_THROW(Parse("Nr\xff\xff\xff\xff."), Error);  // memo slot 4294967295
  EXPECT_THROW(Parse("Np99999999999999999\n."), Error);
  PickleLimits few;
  few.max_containers = 10;
  EXPECT_THROW(Pickle::Parse("(" + std::string(20, ')') + "t.", "x", few), Error);
}

TEST(HostilePickle, RepeatedDecodingIsAnError) {
  std::string bomb = "c_codecs\nencode\nq\x01(X";
  const std::string text(100000, 'a');
  bomb += std::string("\xa0\x86\x01\x00", 4) + text + "X" + std::string("\x06\0\0\0latin1", 10);
  bomb += "tq\x02";
  for (int i = 0; i < 1000; ++i) bomb += "h\x01h\x02R";
  EXPECT_THROW(Parse(bomb + "."), Error);
}

TEST(HostilePickle, ArraysMustFitTheirBytes) {
  std::string bytes = Sample();
  // The array's sizes are written as 4-byte integers: 1, 2, 2.
  const std::string shape("(J\x01\0\0\0J\x02\0\0\0J\x02\0\0\0t", 17);
  const size_t at = bytes.find(shape);
  ASSERT_NE(at, std::string::npos);
  for (const std::string& replacement :
       {std::string("\x03\0\0\0", 4), std::string("\xff\xff\xff\xff", 4),
        std::string("\xff\xff\xff\x7f", 4)}) {
    std::string changed = bytes;
    changed.replace(at + 2, 4, replacement);
    EXPECT_THROW(Parse(changed), Error);
  }
}

TEST(HostilePickle, ErrorsNameTheFile) {
  try {
    Pickle::Parse("nonsense", "ntu60.pkl");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "ntu60.pkl");
  }
}

TEST(PickleWriter, PiecesMakeTheSamePickleAsTheWhole) {
  PickleWriter piece(3);
  piece.BeginTuple();
  piece.Int(1);
  piece.String("a");
  piece.EndTuple();
  const std::string pair = piece.TakeValue();
  piece.Int(7);
  const std::string number = piece.TakeValue();

  PickleWriter writer(3);
  std::string written;
  writer.BeginList();
  writer.Splice(pair);
  written += writer.Drain();
  writer.Splice(number);
  writer.Splice(pair);
  written += writer.Drain();
  writer.EndList();
  written += writer.Finish();
  const Pickle read = Pickle::Parse(written, "pieces");
  ASSERT_EQ(read.root().size(), 3U);
  EXPECT_EQ(read.root()[0][1].AsString(""), "a");
  EXPECT_EQ(read.root()[1].AsInt(""), 7);
  EXPECT_EQ(read.root()[2][0].AsInt(""), 1);
}

TEST(Pickle, OtherFilesCalledPklAreNamed) {
  TestFolder folder;
  const std::map<std::string, std::string> wanted = {
      {std::string("\x1f\x8b\x08\0", 4), "gzip"},
      {"{\"split\": 1}", "JSON"},
      {"\xEF\xBB\xBF\n[1]", "JSON"},
      {std::string("PK\3\4....archive/data.pkl", 24), "torch.save"},
      {std::string("PK\3\4....keypoint.npy", 20), "zip archive"},
      {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "torch.save"},
      {"\x93NUMPY", "numpy"},
      {"version https://git-lfs.github.com/spec/v1", "Git LFS"},
      {"", "empty"}};
  for (const auto& [bytes, what] : wanted) {
    try {
      Pickle::Load(folder.Write("x.pkl", bytes));
      ADD_FAILURE() << what;
    } catch (const Error& error) {
      EXPECT_NE(error.problem().find(what), std::string::npos) << error.what();
      EXPECT_EQ(error.problem().find("hostile"), std::string::npos) << error.what();
      EXPECT_FALSE(error.remedy().empty());
    }
  }
}

// A tensor as pickle.dump writes it: over 6 floats, as a file of torch.save within the pickle.
std::string TorchTensor(const std::string& offset, const std::string& shape,
                        const std::string& strides, char count = 6) {
  std::string file("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.M\xe9\x03.}.", 21);
  file +=
      "(U\x07storagectorch\nFloatStorage\nU\x01"
      "0U\x03"
      "cpuK";
  file += count;
  file +=
      "NtQ.]U\x01"
      "0a.";
  file += std::string(1, count) + std::string(7, '\0');
  for (const float value : {0.0F, 1.0F, 2.0F, 3.0F, 4.0F, 5.0F}) {
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return "ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n(U" +
         std::string(1, static_cast<char>(file.size())) + file + "tRK" + offset + shape + strides +
         "I00\ntR.";
}

TEST(Pickle, TensorsAreReadLikeArrays) {
  const std::string two_three("(K\2K\3t", 6);
  const auto floats = [](const std::string& bytes) {
    const Pickle pickle = Pickle::Parse(bytes, "x");
    return pickle.root().AsArray("x").ToFloats();
  };
  EXPECT_EQ(floats(TorchTensor(std::string(1, '\0'), two_three, std::string("(K\3K\1t", 6))),
            (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(floats(TorchTensor(std::string(1, '\0'), "(K\3K\2t", "(K\1K\3t")),
            (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(floats(TorchTensor("\4", "(K\2t", "(K\1t")), (std::vector<float>{4, 5}));
  const Pickle scalar = Pickle::Parse(TorchTensor("\5", ")", ")"), "x");
  EXPECT_EQ(scalar.root().AsFloat("x"), 5);

  EXPECT_THROW(floats(TorchTensor("\5", "(K\2t", "(K\1t")), Error);
  EXPECT_THROW(floats(TorchTensor("\1", two_three, "(K\3K\1t")), Error);
  EXPECT_THROW(floats(TorchTensor("\1", "(K\6t", "(K\1t")), Error);
  EXPECT_THROW(floats(TorchTensor("\1", "(J\xff\xff\xff\xfft", "(K\1t")), Error);
  EXPECT_THROW(floats(TorchTensor("\1", "(K\2t", "(J\xff\xff\xff\xfft")), Error);
  EXPECT_THROW(floats(TorchTensor("\1", "(K\2t", "(K\1t", 7)), Error);
  EXPECT_THROW(floats(TorchTensor("\1", "(K\2t", "(K\1t", 5)), Error);
  const std::string whole = TorchTensor("\1", "(K\2t", "(K\1t");
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x21);
    try {
      Pickle::Parse(changed, "x");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace kinefit
