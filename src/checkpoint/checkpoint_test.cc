#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "checkpoint/safetensors.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/python_test.h"
#include "files/zip.h"

namespace kinefit {
namespace {

at::Tensor Ramp(std::vector<int64_t> shape, at::ScalarType dtype = at::kFloat) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(count).to(dtype).view(shape);
}

const CheckpointValue& At(const CheckpointDict& dict, const std::string& key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return value;
  }
  throw Error("no such key", key);
}

CheckpointDict EveryKind() {
  CheckpointDict tensors;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong,
                                    at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensors.emplace_back(c10::toString(type), Ramp({2, 3}, type));
  }
  tensors.emplace_back("scalar", at::scalar_tensor(2.5, at::kFloat));
  tensors.emplace_back("empty", at::zeros({0, 4}));
  tensors.emplace_back("turned", Ramp({2, 3}).t());
  return {{"tensors", tensors},
          {"none", CheckpointValue()},
          {"yes", true},
          {"small", -3},
          {"large", int64_t{1} << 60},
          {"pi", 3.141592653589793},
          {"infinite", -std::numeric_limits<double>::infinity()},
          {"text", "动作识别"},
          {"list", CheckpointList{1, 0.5, "two", CheckpointList{}, CheckpointDict{}}}};
}

void ExpectEveryKind(const CheckpointDict& back) {
  const CheckpointDict wanted = EveryKind();
  ASSERT_EQ(back.size(), wanted.size());
  const CheckpointDict& tensors = At(back, "tensors").AsDict("tensors");
  for (const auto& [name, value] : At(wanted, "tensors").AsDict("tensors")) {
    const at::Tensor& tensor = At(tensors, name).AsTensor(name);
    EXPECT_EQ(tensor.scalar_type(), value.AsTensor(name).scalar_type()) << name;
    EXPECT_EQ(tensor.sizes(), value.AsTensor(name).sizes()) << name;
    EXPECT_TRUE(at::equal(tensor, value.AsTensor(name))) << name;
  }
  EXPECT_TRUE(At(back, "none").is_none());
  EXPECT_TRUE(At(back, "yes").AsBool("yes"));
  EXPECT_EQ(At(back, "small").AsInt("small"), -3);
  EXPECT_EQ(At(back, "large").AsInt("large"), int64_t{1} << 60);
  EXPECT_EQ(At(back, "pi").AsDouble("pi"), 3.141592653589793);
  EXPECT_EQ(At(back, "infinite").AsDouble("infinite"), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(At(back, "text").AsString("text"), "动作识别");
  const CheckpointList& list = At(back, "list").AsList("list");
  ASSERT_EQ(list.size(), 5u);
  EXPECT_EQ(list[1].AsDouble("list"), 0.5);
  EXPECT_EQ(list[2].AsString("list"), "two");
  EXPECT_TRUE(list[3].AsList("list").empty());
  EXPECT_TRUE(list[4].AsDict("list").empty());
}

TEST(Checkpoint, RoundTrip) {
  TestFolder folder;
  WriteCheckpoint(folder.File("x.pth"), EveryKind());
  ExpectEveryKind(ReadCheckpoint(folder.File("x.pth")));
  EXPECT_EQ(folder.Count(), 1);
}

TEST(Checkpoint, TheSameContentsMakeTheSameBytes) {
  TestFolder folder;
  WriteCheckpoint(folder.File("x.pth"), EveryKind());
  WriteCheckpoint(folder.File("y.pth"), EveryKind());
  EXPECT_EQ(ReadFile(folder.File("x.pth")), ReadFile(folder.File("y.pth")));
}

TEST(Checkpoint, SharedMemoryIsWrittenOnce) {
  TestFolder folder;
  const at::Tensor tied = Ramp({1000});
  WriteCheckpoint(folder.File("x.pth"), {{"a", tied}, {"b", tied.view({10, 100})}});
  EXPECT_LT(ReadFile(folder.File("x.pth")).size(), 6000u);
  const CheckpointDict back = ReadCheckpoint(folder.File("x.pth"));
  EXPECT_EQ(At(back, "a").AsTensor("a").data_ptr(), At(back, "b").AsTensor("b").data_ptr());
  EXPECT_TRUE(at::equal(At(back, "b").AsTensor("b"), tied.view({10, 100})));
}

TEST(Checkpoint, AViewDoesNotDragItsWholeStorageAlong) {
  TestFolder folder;
  WriteCheckpoint(folder.File("x.pth"), {{"row", Ramp({1000, 1000})[3]}});
  EXPECT_LT(ReadFile(folder.File("x.pth")).size(), 8000u);
  EXPECT_EQ(At(ReadCheckpoint(folder.File("x.pth")), "row").AsTensor("row")[0].item<float>(), 3000);
}

TEST(Checkpoint, WhatCannotBeSavedIsAnError) {
  TestFolder folder;
  const CheckpointDict complex = {{"x", at::zeros({2}, at::kComplexFloat)}};
  EXPECT_THROW(WriteCheckpoint(folder.File("x.pth"), complex), Error);
  EXPECT_THROW(WriteCheckpoint(folder.File("missing/x.pth"), EveryKind()), Error);
  EXPECT_EQ(folder.Count(), 0);
}

TEST(Checkpoint, AFailedWriteLeavesTheOldFile) {
  TestFolder folder;
  const std::string path = folder.File("x.pth");
  WriteCheckpoint(path, {{"x", 1}});
  const std::string before = ReadFile(path);
  bool succeeded = false;
  for (int64_t nth = 0; !succeeded; ++nth) {
    ASSERT_LT(nth, 20);
    try {
      const ScopedFileFault fault(nth, ENOSPC);
      WriteCheckpoint(path, {{"x", Ramp({1 << 20})}});
      succeeded = true;
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), path);
      EXPECT_EQ(folder.Count(), 1);
      // The last call is the folder's flush: then the new file is there already, whole.
      if (ReadFile(path) != before) {
        EXPECT_NO_THROW(ReadCheckpoint(path));
      }
    }
  }
  EXPECT_EQ(At(ReadCheckpoint(path), "x").AsTensor("x").numel(), 1 << 20);
}

TEST(Checkpoint, PythonReadsItWithWeightsOnly) {
  SKIP_WITHOUT_PYTHON("torch");
  TestFolder folder;
  WriteCheckpoint(folder.File("x.pth"), EveryKind());
  RunPython("import torch, math\nfor safe in (True, False):\n  d = torch.load('" +
            folder.File("x.pth") +
            "', weights_only=safe)\n"
            "  t = d['tensors']\n"
            "  types = dict(Float='float32', Double='float64', Half='float16',"
            " BFloat16='bfloat16', Long='int64', Int='int32', Short='int16', Char='int8',"
            " Byte='uint8', Bool='bool')\n"
            "  for k, n in types.items():\n"
            "    want = torch.arange(6).reshape(2, 3).to(getattr(torch, n))\n"
            "    assert t[k].dtype == want.dtype and torch.equal(t[k], want), k\n"
            "  assert t['scalar'].shape == () and t['scalar'] == 2.5\n"
            "  assert t['empty'].shape == (0, 4)\n"
            "  assert torch.equal(t['turned'], torch.arange(6.).reshape(2, 3).t())\n"
            "  assert d['none'] is None and d['yes'] is True\n"
            "  assert d['small'] == -3 and d['large'] == 1 << 60 and d['text'] == '动作识别'\n"
            "  assert float(d['pi']) == math.pi and d['infinite'] == -math.inf\n"
            "  assert d['list'][0] == 1 and d['list'][1] == 0.5 and d['list'][2:] =="
            " ['two', [], {}]");
}

TEST(Checkpoint, ReadsWhatPythonWrites) {
  SKIP_WITHOUT_PYTHON("torch");
  TestFolder folder;
  RunPython(
      "import torch, collections, numpy as np\n"
      "base = torch.arange(24.).reshape(4, 6)\n"
      "m = torch.nn.Linear(3, 2)\n"
      "o = torch.optim.Adam(m.parameters())\n"
      "m(torch.ones(1, 3)).sum().backward(); o.step()\n"
      "class Foreign:\n"
      "  pass\n"
      "torch.save(dict(base=base, column=base[:, 2], turned=base.t(), part=base[1:3, 4:],\n"
      "  wide=torch.ones(1).expand(5), parameter=torch.nn.Parameter(torch.ones(2)),\n"
      "  bf=torch.tensor([1.5]).bfloat16(), flag=torch.tensor([True, False]),\n"
      "  size=base.shape, lr=0.1, device=torch.device('cpu'), dtype=torch.float32,\n"
      "  foreign=Foreign(), array=np.arange(3, dtype='f4'), np_scalar=np.float64(2.5),\n"
      "  complex=torch.zeros(2, dtype=torch.complex64), huge=1 << 100,\n"
      "  ordered=collections.OrderedDict(m.state_dict()), optimizer=o.state_dict(),\n"
      "  empty=torch.zeros(0, 3)), '" +
      folder.File("x.pth") + "')");
  const CheckpointDict d = ReadCheckpoint(folder.File("x.pth"));
  const auto tensor = [&](const char* key) { return At(d, key).AsTensor(key); };
  const at::Tensor base = Ramp({4, 6});
  EXPECT_TRUE(at::equal(tensor("base"), base));
  EXPECT_TRUE(at::equal(tensor("column"), base.select(1, 2)));
  EXPECT_TRUE(at::equal(tensor("turned"), base.t()));
  EXPECT_TRUE(at::equal(tensor("part"), base.slice(0, 1, 3).slice(1, 4)));
  EXPECT_TRUE(at::equal(tensor("wide"), at::ones({5})));
  EXPECT_TRUE(at::equal(tensor("parameter"), at::ones({2})));
  EXPECT_EQ(tensor("bf").scalar_type(), at::kBFloat16);
  EXPECT_FALSE(tensor("flag")[1].item<bool>());
  EXPECT_EQ(At(d, "size").AsList("size")[1].AsInt("size"), 6);
  EXPECT_EQ(At(d, "lr").AsDouble("lr"), 0.1);
  for (const char* key : {"device", "dtype", "foreign", "complex", "huge"}) {
    EXPECT_TRUE(At(d, key).is_none()) << key;
  }
  EXPECT_TRUE(at::equal(tensor("array"), Ramp({3})));
  EXPECT_EQ(At(d, "np_scalar").AsDouble("np_scalar"), 2.5);
  EXPECT_EQ(At(d, "ordered").Find("weight")->AsTensor("w").numel(), 6);
  const CheckpointValue* state = At(d, "optimizer").Find("state");
  ASSERT_NE(state, nullptr);
  EXPECT_EQ(state->Find("0")->Find("exp_avg")->AsTensor("m").numel(), 6);
  EXPECT_EQ(tensor("empty").sizes(), (std::vector<int64_t>{0, 3}));
}

TEST(Checkpoint, OtherFormatsAreExplained) {
  SKIP_WITHOUT_PYTHON("torch");
  TestFolder folder;
  RunPython("import torch\nd = '" + folder.path() +
            "/'\n"
            "torch.jit.script(torch.nn.Linear(1, 1)).save(d + 'script.pth')\n"
            "torch.save(torch.nn.Linear(1, 1), d + 'model.pth')\n"
            "torch.save([torch.ones(1)], d + 'list.pth')");
  PublishFile(folder.File("empty.pth"), "");
  PublishFile(folder.File("text.pth"), "version https://git-lfs.github.com/spec/v1\n");
  const std::map<std::string, std::string> wanted = {
      {"script.pth", "TorchScript"},    {"model.pth", "torch.nn.modules.linear.Linear"},
      {"list.pth", "holds a list"},     {"empty.pth", "empty"},
      {"text.pth", "not a checkpoint"}, {"missing.pth", "cannot read"}};
  for (const auto& [name, part] : wanted) {
    try {
      ReadCheckpoint(folder.File(name));
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_NE(error.problem().find(part), std::string::npos) << name << ": " << error.what();
      EXPECT_EQ(error.where(), folder.File(name));
    }
  }
}

TEST(Checkpoint, AnyDamageIsAnErrorThatNamesTheFile) {
  TestFolder folder;
  const std::string path = folder.File("x.pth");
  WriteCheckpoint(path, {{"w", Ramp({3})}, {"x", 0.5}});
  const std::string whole = ReadFile(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(ReadCheckpoint(folder.Write("cut.pth", whole.substr(0, size))), Error) << size;
  }
  const ZipReader zip(path);
  for (const ZipReader::Entry& entry : zip.entries()) {
    std::string changed = whole;
    changed[entry.offset] = static_cast<char>(changed[entry.offset] ^ 1);
    PublishFile(folder.File("bad.pth"), changed);
    try {
      ReadCheckpoint(folder.File("bad.pth"));
      ADD_FAILURE() << entry.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), folder.File("bad.pth"));
    }
  }
}

// A checkpoint of one tensor over a storage of 6 floats.
std::string WriteTensor(const TestFolder& folder, int64_t offset, std::vector<int64_t> sizes,
                        std::vector<int64_t> strides, int64_t bytes = 24) {
  const auto ints = [](PickleWriter* w, const std::vector<int64_t>& values) {
    w->BeginTuple();
    for (const int64_t value : values) w->Int(value);
    w->EndTuple();
  };
  PickleWriter w;
  w.BeginDict();
  w.String("t");
  w.Global("torch._utils", "_rebuild_tensor_v2");
  w.BeginTuple();
  w.BeginTuple();
  w.String("storage");
  w.Global("torch", "FloatStorage");
  w.String("0");
  w.String("cpu");
  w.Int(6);
  w.EndTuple();
  w.PersistentId();
  w.Int(offset);
  ints(&w, sizes);
  ints(&w, strides);
  w.EndTuple();
  w.Reduce();
  w.EndDict();
  ZipWriter zip(folder.File("t.pth"));
  zip.Add("archive/data.pkl", w.Finish());
  zip.Add("archive/data/0", std::string(static_cast<size_t>(bytes), '\0'));
  zip.Commit();
  return folder.File("t.pth");
}

TEST(HostileCheckpoint, TensorsStayInTheirStorage) {
  TestFolder folder;
  constexpr int64_t kBig = std::numeric_limits<int64_t>::max();
  EXPECT_NO_THROW(ReadCheckpoint(WriteTensor(folder, 0, {2, 3}, {3, 1})));
  EXPECT_NO_THROW(ReadCheckpoint(WriteTensor(folder, 4, {2}, {1})));
  EXPECT_NO_THROW(ReadCheckpoint(WriteTensor(folder, 5, {7}, {0})));
  EXPECT_NO_THROW(ReadCheckpoint(WriteTensor(folder, 0, {0, kBig}, {1, 1})));
  const auto refused = [&](int64_t offset, std::vector<int64_t> sizes, std::vector<int64_t> strides,
                           int64_t bytes = 24) {
    EXPECT_THROW(
        ReadCheckpoint(WriteTensor(folder, offset, std::move(sizes), std::move(strides), bytes)),
        Error);
  };
  refused(5, {2}, {1});
  refused(-1, {2}, {1});
  refused(6, {}, {});
  refused(kBig, {2}, {kBig});
  refused(0, {2, 3}, {4, 1});
  refused(0, {2}, {-1});
  refused(0, {-2}, {1});
  refused(0, {2, 3}, {1});
  refused(0, {kBig, kBig}, {0, 0});
  refused(0, {int64_t{1} << 40}, {0});
  refused(0, {2, 3}, {3, 1}, 20);
  refused(0, {2, 3}, {3, 1}, 23);
  refused(0, {2, 3}, {3, 1}, 0);
}

// The file that torch.save wrote before 1.6: a storage of 6 floats that two tensors share, one of
// them through a view of the storage.
std::string LegacyFile(int64_t claimed = 6, int64_t counted = 6, int64_t view_size = 4) {
  const auto ints = [](PickleWriter* w, const std::vector<int64_t>& values) {
    w->BeginTuple();
    for (const int64_t value : values) w->Int(value);
    w->EndTuple();
  };
  PickleWriter version;
  version.Int(1001);
  PickleWriter machine;
  machine.BeginDict();
  machine.String("little_endian");
  machine.Bool(true);
  machine.EndDict();
  PickleWriter w;
  w.BeginDict();
  for (const char* name : {"whole", "part"}) {
    const bool part = name == std::string("part");
    w.String(name);
    w.Global("torch._utils", "_rebuild_tensor_v2");
    w.BeginTuple();
    w.BeginTuple();
    w.String("storage");
    w.Global("torch", "FloatStorage");
    w.String("942");
    w.String("cuda:0");
    w.Int(claimed);
    if (part) {
      w.BeginTuple();
      w.String("943");
      w.Int(2);
      w.Int(view_size);
      w.EndTuple();
    } else {
      w.None();
    }
    w.EndTuple();
    w.PersistentId();
    w.Int(part ? 1 : 0);
    ints(&w, part ? std::vector<int64_t>{3} : std::vector<int64_t>{2, 3});
    ints(&w, part ? std::vector<int64_t>{1} : std::vector<int64_t>{3, 1});
    w.EndTuple();
    w.Reduce();
  }
  w.EndDict();
  PickleWriter keys;
  keys.BeginList();
  keys.String("942");
  keys.EndList();
  const at::Tensor values = Ramp({6});
  std::string file("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  file += version.Finish() + machine.Finish() + w.Finish() + keys.Finish();
  file.append(reinterpret_cast<const char*>(&counted), 8);
  return file.append(static_cast<const char*>(values.data_ptr()), 24);
}

TEST(Checkpoint, ReadsWhatPyTorchWroteBefore16) {
  TestFolder folder;
  const CheckpointDict dict = ReadCheckpoint(folder.Write("x.pth", LegacyFile()));
  EXPECT_TRUE(at::equal(At(dict, "whole").AsTensor("whole"), Ramp({2, 3})));
  EXPECT_TRUE(at::equal(At(dict, "part").AsTensor("part"), Ramp({6}).slice(0, 3, 6)));
  EXPECT_EQ(At(dict, "part").AsTensor("part").storage().data(),
            At(dict, "whole").AsTensor("whole").storage().data());
}

TEST(HostileCheckpoint, SizesOfOldFilesAreChecked) {
  TestFolder folder;
  const auto refused = [&](const std::string& bytes) {
    EXPECT_THROW(ReadCheckpoint(folder.Write("x.pth", bytes)), Error);
  };
  const std::string whole = LegacyFile();
  for (size_t size = 0; size < whole.size(); ++size) refused(whole.substr(0, size));
  refused(whole + "x");
  refused(LegacyFile(7, 6));
  refused(LegacyFile(6, 7));
  refused(LegacyFile(7, 7));
  refused(LegacyFile(5, 5));
  refused(LegacyFile(6, 6, 5));
  refused(LegacyFile(6, 6, 3));
  refused(LegacyFile(-1, -1));
  refused(LegacyFile(int64_t{1} << 62, int64_t{1} << 62));
  // Any one byte changed is an Error or still a checkpoint, never a crash.
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x11);
    try {
      ReadCheckpoint(folder.Write("x.pth", changed));
    } catch (const Error&) {
    }
  }
}

TEST(HostileCheckpoint, ABombOfSharedListsIsAnError) {
  TestFolder folder;
  std::string laughs = "]q\x01";
  for (int i = 0; i < 100; ++i) {
    laughs += "0](h\x01h\x01";
    laughs += "eq\x01";
  }
  ZipWriter zip(folder.File("x.pth"));
  zip.Add("archive/data.pkl", "}S'a'\n" + laughs + "s.");
  zip.Commit();
  EXPECT_THROW(ReadCheckpoint(folder.File("x.pth")), Error);
}

std::string Safetensors(const std::string& header, const std::string& data = std::string(8, 1)) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

TEST(Safetensors, RoundTrip) {
  TestFolder folder;
  const CheckpointDict every = EveryKind();
  NamedTensorList tensors;
  for (const auto& [name, value] : At(every, "tensors").AsDict("tensors")) {
    tensors.emplace_back(name, value.AsTensor(name));
  }
  const std::string path = folder.File("x.safetensors");
  WriteSafetensors(path, tensors, {{"config", "a = 1"}, {"class_names", R"(["走", "b"])"}});
  const CheckpointDict back = ReadCheckpoint(path);
  EXPECT_EQ(At(back, "config").AsString("config"), "a = 1");
  EXPECT_EQ(At(back, "class_names").AsList("names")[0].AsString("name"), "走");
  const CheckpointDict& read = At(back, "state_dict").AsDict("state_dict");
  ASSERT_EQ(read.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(At(read, name).AsTensor(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(At(read, name).AsTensor(name), tensor)) << name;
  }
  EXPECT_EQ(StateDictOf(back, path).size(), tensors.size());
  const std::string bytes = ReadFile(path);
  WriteSafetensors(path, tensors, {{"config", "a = 1"}, {"class_names", R"(["走", "b"])"}});
  EXPECT_EQ(ReadFile(path), bytes);
}

TEST(HostileCheckpoint, SafetensorsAreChecked) {
  TestFolder folder;
  const auto read = [&](const std::string& bytes) {
    return ReadCheckpoint(folder.Write("x.safetensors", bytes));
  };
  const std::string one = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_EQ(StateDictOf(read(Safetensors(one)), "x")[0].second.numel(), 2);
  EXPECT_NO_THROW(read(Safetensors(one + "   ")));
  const auto entry = [](const std::string& shape, const std::string& offsets,
                        const std::string& type = "F32") {
    return Safetensors(R"({"a":{"dtype":")" + type + R"(","shape":)" + shape +
                       R"(,"data_offsets":)" + offsets + "}}");
  };
  for (const std::string& bytes :
       {entry("[2]", "[0,9]"),
        entry("[2]", "[8,0]"),
        entry("[3]", "[0,12]"),
        entry("[1]", "[0,4]"),
        entry("[1]", "[4,8]"),
        entry("[2]", "[-1,7]"),
        entry("[-2]", "[0,8]"),
        entry("[2.0]", "[0,8]"),
        entry("2", "[0,8]"),
        entry("[2]", "[0]"),
        entry("[2]", "8"),
        entry("[9223372036854775807,2,2]", "[0,8]"),
        entry("[18446744073709551615]", "[0,8]"),
        entry("[2]", "[0,8]", "F8_E4M3"),
        entry("[2]", "[18446744073709551608,0]"),
        Safetensors("{"),
        Safetensors("{}"),
        Safetensors("{\"a\":1}"),
        Safetensors(R"({"__metadata__":1})", ""),
        Safetensors(R"({"__metadata__":{"a":1}})", ""),
        Safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})")}) {
    EXPECT_THROW(read(bytes), Error) << bytes.substr(8);
  }
  const std::string whole = Safetensors(one);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(read(whole.substr(0, size)), Error) << size;
  }
}

TEST(StateDictOf, FindsTheWeights) {
  const at::Tensor one = at::ones({1});
  const at::Tensor two = at::ones({1}) * 2;
  const auto first = [](const CheckpointDict& root, bool ema = false) {
    const auto weights = StateDictOf(root, "x.pth", ema);
    return weights[0].first + "=" + std::to_string(weights[0].second.item<float>()).substr(0, 1);
  };
  EXPECT_EQ(first({{"state_dict", CheckpointDict{{"w", one}}}}), "w=1");
  EXPECT_EQ(first({{"model", CheckpointDict{{"module.w", one}}}, {"epoch", 3}}), "w=1");
  EXPECT_EQ(first({{"w", one}, {"b", two}}), "w=1");
  EXPECT_THROW(StateDictOf({{"epoch", 3}}, "x.pth"), Error);
  EXPECT_THROW(StateDictOf({{"state_dict", CheckpointDict{}}}, "x.pth"), Error);

  // kinefit's and plain averages; buffers come from the network itself.
  const CheckpointDict ours = {
      {"state_dict", CheckpointDict{{"w", one}, {"mean", one}}},
      {"ema", CheckpointDict{{"steps", 4}, {"state_dict", CheckpointDict{{"w", two}}}}}};
  EXPECT_EQ(first(ours), "w=1");
  EXPECT_EQ(first(ours, true), "w=2");
  EXPECT_EQ(StateDictOf(ours, "x.pth", true)[1].second.item<float>(), 1);
  EXPECT_EQ(first({{"state_dict", CheckpointDict{{"w", one}}},
                   {"ema_state_dict", CheckpointDict{{"w", two}}}},
                  true),
            "w=2");
  // mmengine swaps them when saving.
  EXPECT_EQ(first({{"state_dict", CheckpointDict{{"w", one}}},
                   {"ema_state_dict", CheckpointDict{{"steps", at::zeros({})}, {"module.w", two}}}},
                  true),
            "w=1");
}

TEST(StateDictOf, TakesOffAnyMixOfWrappers) {
  const at::Tensor one = at::ones({1});
  for (const char* name :
       {"module.a.conv.weight", "_orig_mod.a.conv.weight", "module._orig_mod.a.conv.weight",
        "_orig_mod.module.a.conv.weight", "model.a.conv.weight", "net.module.a.conv.weight",
        "model._orig_mod.module.a.conv.weight", "model.net.a.conv.weight",
        "a._orig_mod.conv.weight", "_fsdp_wrapped_module.a.module.conv._orig_mod.weight"}) {
    std::string said;
    const auto weights =
        StateDictOf({{"state_dict", CheckpointDict{{name, one}}}}, "x.pth", false, nullptr, &said);
    EXPECT_EQ(weights[0].first, "a.conv.weight") << name;
    EXPECT_NE(said.find("without the wrappers' \""), std::string::npos) << said;
  }
  // Two names must not become one.
  const auto both = StateDictOf({{"module.w", one}, {"w", one}}, "x.pth");
  EXPECT_EQ(both[0].first, "module.w");
}

TEST(StateDictOf, FindsTheDictionaryWithTheWeights) {
  const at::Tensor one = at::ones({1});
  const CheckpointDict weights = {{"a.weight", one}, {"a.bias", one}};
  for (const char* key :
       {"model_state", "model_state_dict", "net", "network", "params", "weights"}) {
    const CheckpointDict root = {
        {"mean", one},
        {"optimizer", CheckpointDict{{"a.weight", one}, {"a.bias", one}, {"b.weight", one}}},
        {"state_dict", CheckpointDict{}},
        {key, weights}};
    std::string said;
    EXPECT_EQ(StateDictOf(root, "x.pth", false, nullptr, &said).size(), 2u) << key;
    EXPECT_EQ(said, std::string("found under \"") + key + "\"");
  }
  EXPECT_EQ(StateDictOf({{"checkpoint", CheckpointDict{{"model", weights}}}}, "x.pth").size(), 2u);

  // The network's own names count more than the number of tensors.
  const CheckpointDict two = {{"critic", CheckpointDict{{"c.weight", one}, {"c.bias", one}}},
                              {"actor", CheckpointDict{{"module.a.weight", one}}}};
  const at::Tensor place = at::zeros({1});
  const LoadReport report = LoadWeights({{"a.weight", place}}, two, false, true, "x.pth");
  EXPECT_EQ(report.Summary(),
            "loaded 1 tensors, found under \"actor\", without the wrappers' \"module.\"");
  EXPECT_EQ(place.item<float>(), 1);
}

TEST(LoadInto, ReportsEveryDifference) {
  const at::Tensor a = at::zeros({2});
  const at::Tensor b = at::zeros({3});
  const at::Tensor c = at::zeros({1});
  const at::Tensor counter = at::zeros({}, at::kLong);
  const std::vector<std::pair<std::string, at::Tensor>> target = {
      {"a", a}, {"b", b}, {"c", c}, {"bn.num_batches_tracked", counter}};
  const std::vector<std::pair<std::string, at::Tensor>> source = {
      {"a", at::ones({2}, at::kDouble)}, {"b", at::ones({4})}, {"d", at::ones({1})}};
  EXPECT_THROW(LoadInto(target, source, true, "x.pth"), Error);
  EXPECT_EQ(a.sum().item<float>(), 0);  // nothing is half loaded

  const LoadReport report = LoadInto(target, source, false, "x.pth");
  EXPECT_EQ(report.loaded, 1);
  EXPECT_EQ(report.missing, std::vector<std::string>{"c"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"d"});
  EXPECT_EQ(report.mismatched, std::vector<std::string>{"b: file [4], network [3]"});
  EXPECT_FALSE(report.clean());
  EXPECT_NE(report.Summary().find("b: file [4]"), std::string::npos);
  EXPECT_EQ(a.sum().item<float>(), 2);
  EXPECT_THROW(LoadInto(target, {{"other", at::ones({2})}}, false, "x.pth"), Error);
  EXPECT_EQ(LoadInto({{"a", a}}, {{"a", b.slice(0, 0, 2)}}, true, "x.pth").Summary(),
            "loaded 1 tensors");
}

TEST(LoadInto, WeightsThatAreNotFiniteAreNamed) {
  const at::Tensor place = at::zeros({2});
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    const at::Tensor half = at::ones({2}, at::kHalf);
    half[1] = bad;
    try {
      LoadInto({{"a", at::zeros({2})}, {"bn.running_var", place}},
               {{"a", at::ones({2})}, {"bn.running_var", half}}, false, "x.pth");
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(error.problem().find("(1): bn.running_var"), std::string::npos) << error.what();
      EXPECT_NE(error.remedy().find("--allow-nonfinite"), std::string::npos);
    }
    EXPECT_EQ(place.sum().item<float>(), 0);  // nothing is half loaded
  }
  AllowNonfinite(true);
  EXPECT_EQ(LoadInto({{"a", place}}, {{"a", at::full({2}, HUGE_VAL)}}, true, "x.pth").loaded, 1);
  AllowNonfinite(false);
}

TEST(LoadInto, WhatBelongsToNoPartOfTheNetworkIsANote) {
  const at::Tensor one = at::ones({1});
  const at::Tensor place = at::zeros({1});
  const LoadReport report = LoadInto({{"backbone.a.weight", place}},
                                     {{"backbone.a.weight", one},
                                      {"data_preprocessor.mean", one},
                                      {"criterion.weight", one},
                                      {"n_averaged", at::ones({}, at::kLong)},
                                      {"backbone.a.total_ops", one}},
                                     true, "x.pth");
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.foreign.size(), 4u);
  EXPECT_NE(report.Summary().find("(4): data_preprocessor.mean"), std::string::npos);
  // A layer that the network lacks is no note: the others were trained with it.
  EXPECT_THROW(LoadInto({{"backbone.a.weight", place}},
                        {{"backbone.a.weight", one}, {"backbone.b.weight", one}}, true, "x.pth"),
               Error);
}

#ifdef KINEFIT_SHARED
TEST(Fixtures, CheckpointsOfOthersLoad) {
  const std::string shared = KINEFIT_SHARED;
  const std::string cases = shared + "/cases/";
  if (!std::filesystem::exists(cases)) GTEST_SKIP() << "NOT CHECKED: " << cases << " is absent";
  const auto want = StateDictOf(ReadCheckpoint(shared + "/parity/rgbpose_tiny.pth"), "plain");
  for (const char* name :
       {"checkpoint_compiled.pth", "checkpoint_compiled_ddp.pth", "checkpoint_legacy.pth"}) {
    NamedTensorList target;
    for (const auto& [key, tensor] : want) target.emplace_back(key, at::zeros_like(tensor));
    LoadWeights(target, ReadCheckpoint(cases + name), false, true, name);
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_TRUE(at::equal(want[i].second, target[i].second)) << want[i].first;
    }
    EXPECT_EQ(target.size(), 594u);
  }
}

TEST(Fixtures, PlainAndMmengineCheckpointsAgree) {
  const std::string folder = std::string(KINEFIT_SHARED) + "/parity/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "NOT CHECKED: " << folder << " is absent";
  const CheckpointDict plain = ReadCheckpoint(folder + "rgbpose_tiny.pth");
  const CheckpointDict full = ReadCheckpoint(folder + "rgbpose_tiny_mmengine.pth");
  const auto a = StateDictOf(plain, "plain");
  const auto b = StateDictOf(full, "mmengine");
  ASSERT_EQ(a.size(), 594u);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
  EXPECT_EQ(a[0].first, "backbone.rgb_path.conv1.conv.weight");
  EXPECT_NE(At(full, "optimizer").Find("state"), nullptr);

  TestFolder out;
  WriteCheckpoint(out.File("again.pth"), full);
  const auto again = StateDictOf(ReadCheckpoint(out.File("again.pth")), "again");
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, again[i].second));
}
#endif

}  // namespace
}  // namespace kinefit
