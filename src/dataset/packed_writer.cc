#include "dataset/packed_writer.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
#include <opencv2/core.hpp>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "dataset/bad_share.h"
#include "dataset/packed_store.h"
#include "dataset/worker_threads.h"
#include "files/error.h"
#include "files/mapped_file.h"
#include "files/publish.h"
#include "files/resumable_file.h"

namespace kinefit {
namespace {

PackedEntry EntryOf(const Sample& sample) {
  PackedEntry entry;
  entry.id = sample.id;
  entry.label = sample.label;
  entry.width = sample.width;
  entry.height = sample.height;
  entry.frames = sample.total_frames;
  return entry;
}

// All that is known before any video is read: the set and, behind one another, the poses.
struct Annotations {
  PackedSet set;
  std::string poses;
};

Annotations Collect(const PackRequest& request) {
  Annotations all;
  all.set.settings = request.settings;
  all.set.class_names = request.set->class_names;
  std::unordered_map<std::string, std::vector<uint32_t>> entries_of;
  const auto add = [&](PackedEntry entry) {
    entries_of[entry.id].push_back(static_cast<uint32_t>(all.set.entries.size()));
    all.set.entries.push_back(std::move(entry));
  };
  const auto reject = [&](const std::string& id, const std::string& reason) {
    PackedEntry entry;
    entry.id = id;
    entry.rejected = reason;
    add(std::move(entry));
  };
  for (const Sample& sample : request.set->samples) {
    PackedEntry entry = EntryOf(sample);
    all.poses += EncodePose(sample.pose, &entry);
    all.poses.resize(Padded(all.poses.size()), '\0');
    add(std::move(entry));
  }
  for (const auto& [id, reason] : request.set->rejected) reject(id, reason);
  for (const auto& [name, ids] : request.splits) {
    PackedSplit split;
    split.name = name;
    for (const std::string& id : std::unordered_set<std::string>(ids.begin(), ids.end())) {
      const auto found = entries_of.find(id);
      if (found == entries_of.end()) continue;
      split.entries.insert(split.entries.end(), found->second.begin(), found->second.end());
    }
    for (const std::string& id : ids) {
      if (entries_of.count(id) > 0) continue;
      split.entries.push_back(static_cast<uint32_t>(all.set.entries.size()));
      reject(id, "in a split but not annotated");
    }
    std::sort(split.entries.begin(), split.entries.end());
    split.entries.erase(std::unique(split.entries.begin(), split.entries.end()),
                        split.entries.end());
    all.set.splits.push_back(std::move(split));
  }
  return all;
}

std::string EncodeRecord(PackedClip clip, size_t entry) {
  clip.table.entry = static_cast<uint32_t>(entry);
  clip.table.image_bytes.clear();
  clip.table.image_hash.clear();
  for (const std::string& image : clip.images) {
    clip.table.image_bytes.push_back(static_cast<uint32_t>(image.size()));
    clip.table.image_hash.push_back(XxHash64(image));
  }
  std::string record = EncodeClipTable(clip.table);
  for (const std::string& image : clip.images) record += image;
  return record;
}

// What one clip became: a record, or the reason why there is none.
struct Made {
  std::string record;
  std::string failure;
};

// Makes clips on several threads and hands them out in their order. Few are held at once.
class ClipMaker {
 public:
  ClipMaker(const PackRequest& request, const MakePackedClip& make, std::vector<size_t> entries)
      : request_(request), make_(make), entries_(std::move(entries)) {
    // One clip per thread is all the parallelism there is.
    if (cv::getNumThreads() > 1) cv::setNumThreads(0);
    const int threads = std::max(1, request.threads);
    most_held_ = 4 * static_cast<size_t>(threads);
    if (StartThreads(
            threads, [this] { Work(); }, &threads_) > 0)
      return;
    throw ResourceError("the system starts no thread to pack clips with", "--threads",
                        "allow more processes (ulimit -u, or the limit of the control group)");
  }
  ~ClipMaker() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  ClipMaker(const ClipMaker&) = delete;
  ClipMaker& operator=(const ClipMaker&) = delete;

  // The clip of entries[i], for i = 0, 1, 2, ... Rethrows what is no fault of a clip.
  Made Take(size_t i) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return failure_ || made_.count(i) > 0; });
    if (failure_) std::rethrow_exception(failure_);
    Made made = std::move(made_[i]);
    made_.erase(i);
    taken_ = i + 1;
    lock.unlock();
    changed_.notify_all();
    return made;
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] {
        return stop_ || failure_ || next_ >= entries_.size() || next_ < taken_ + most_held_;
      });
      if (stop_ || failure_ || next_ >= entries_.size()) return;
      const size_t i = next_++;
      lock.unlock();
      Made made;
      std::exception_ptr failure;
      try {
        made.record = EncodeRecord(make_(request_.set->samples[entries_[i]]), entries_[i]);
      } catch (const ResourceError&) {
        failure = std::current_exception();
      } catch (const Error& error) {
        made.failure = error.problem() + (error.where().empty() ? "" : " (" + error.where() + ")");
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      made_[i] = std::move(made);
      if (failure && !failure_) failure_ = failure;
      changed_.notify_all();
    }
  }

  const PackRequest& request_;
  const MakePackedClip& make_;
  const std::vector<size_t> entries_;
  size_t most_held_ = 1;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<size_t, Made> made_;
  size_t next_ = 0;
  size_t taken_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

class Packing {
 public:
  Packing(const PackRequest& request, const MakePackedClip& make,
          const std::function<void(const PackProgress&)>& progress)
      : request_(request), make_(make), progress_(progress), annotations_(Collect(request)) {
    set_ = EncodeSet(annotations_.set);
    header_.set_bytes = set_.size();
    header_.set_hash = XxHash64(set_);
    header_.poses_bytes = annotations_.poses.size();
    places_.resize(annotations_.set.entries.size());
  }

  PackReport Run() {
    if (IsThere()) {
      report_.was_complete = true;
      return std::move(report_);
    }
    ResumableFile file(request_.path);
    if (!CanGoOn(file)) Begin(&file);
    file.Truncate(end_);
    if (request_.settings.images) {
      RetryFailures(&file);
      PackRest(&file);
    }
    Finish(&file);
    return std::move(report_);
  }

 private:
  size_t clips() const { return request_.set->samples.size(); }

  // Whether the finished store is there already.
  bool IsThere() {
    if (request_.force || !std::filesystem::exists(request_.path)) return false;
    PackedHeader header;
    {
      const MappedFile file(request_.path);
      if (!HasPackedMagic(file.bytes())) {
        throw Error("a file that is no packed store is there", request_.path,
                    "choose another name, or replace it with --force");
      }
      header = ParsePackedHeader(file.bytes(), request_.path);
    }
    if (header.set_hash == header_.set_hash && header.complete) {
      const auto store = PackedStore::Open(request_.path);
      for (size_t i = 0; i < clips(); ++i) {
        if (!store->failure(i).empty()) {
          report_.failed.push_back({request_.set->samples[i].id, store->failure(i)});
        }
      }
      return true;
    }
    throw Error("a packed store of other data or with other settings is there", request_.path,
                "choose another name, or replace it with --force");
  }

  // Finds out what an earlier run has written. False if nothing of use.
  bool CanGoOn(const ResumableFile& file) {
    if (request_.force || file.size() < header_.records_begin()) return false;
    const MappedFile mapped(file.partial_path());
    const std::string_view bytes = mapped.bytes();
    if (!HasPackedMagic(bytes)) return false;
    const PackedHeader header = ParsePackedHeader(bytes, file.partial_path());
    if (header.set_hash != header_.set_hash || header.set_bytes != header_.set_bytes) {
      throw Error("an unfinished store of other data or with other settings is there",
                  file.partial_path(),
                  "finish it with the command that began it, or begin anew with --force");
    }
    if (bytes.substr(header_.set_begin(), set_.size()) != set_ ||
        bytes.substr(header_.poses_begin(), annotations_.poses.size()) != annotations_.poses) {
      return false;
    }
    ScanRecords(mapped);
    return true;
  }

  // Records are in the order of the clips. What does not verify, and all after it, is made again.
  void ScanRecords(const MappedFile& file) {
    const std::string_view bytes = file.bytes();
    uint64_t at = header_.records_begin();
    while (next_ < clips() && at < bytes.size()) {
      const std::string_view rest = bytes.substr(at);
      const int64_t frames = PeekClipFrames(rest);
      if (frames == 0) break;
      ClipTable table;
      uint64_t size = 0;
      try {
        table = ParseClipTable(rest, frames, file.path());
        size = ClipTableBytes(static_cast<uint64_t>(frames)) + table.images_bytes();
        ParseWholeClip(rest.substr(0, size), frames, file.path());
      } catch (const Error&) {
        break;
      }
      const size_t entry = table.entry;
      if (entry < next_ || entry >= clips() || rest.size() < Padded(size) ||
          annotations_.set.entries[entry].frames != frames ||
          rest.substr(size, Padded(size) - size).find_first_not_of('\0') !=
              std::string_view::npos) {
        break;
      }
      for (; next_ < entry; ++next_) skipped_.push_back(next_);
      places_[entry].bytes = size;
      next_ = entry + 1;
      at += Padded(size);
      ++report_.resumed;
      file.Release(at - Padded(size), size);
      Report(at, static_cast<int64_t>(next_));
    }
    end_ = at;
  }

  void Begin(ResumableFile* file) {
    file->Truncate(0);
    file->Append(EncodePackedHeader(header_));
    AppendPadded(set_, file);
    AppendPadded(annotations_.poses, file);
    end_ = file->size();
  }

  static void AppendPadded(const std::string& bytes, ResumableFile* file) {
    file->Append(bytes);
    file->Append(std::string(Padded(bytes.size()) - bytes.size(), '\0'));
  }

  // Clips that the earlier run left out. One that can be read now belongs where it would have been:
  // what follows is made again.
  void RetryFailures(ResumableFile* file) {
    if (skipped_.empty()) return;
    ClipMaker maker(request_, make_, skipped_);
    for (size_t i = 0; i < skipped_.size(); ++i) {
      const size_t entry = skipped_[i];
      const Made made = maker.Take(i);
      if (!made.failure.empty()) {
        RecordFailure(entry, made.failure);
        continue;
      }
      end_ = header_.records_begin();
      report_.resumed = 0;
      for (size_t before = 0; before < entry; ++before) {
        end_ += Padded(places_[before].bytes);
        report_.resumed += places_[before].bytes > 0 ? 1 : 0;
      }
      for (size_t after = entry; after < places_.size(); ++after) places_[after] = {};
      next_ = entry;
      file->Truncate(end_);
      return;
    }
  }

  void PackRest(ResumableFile* file) {
    std::vector<size_t> rest;
    for (size_t entry = next_; entry < clips(); ++entry) rest.push_back(entry);
    ClipMaker maker(request_, make_, rest);
    for (size_t i = 0; i < rest.size(); ++i) {
      Made made = maker.Take(i);
      if (made.failure.empty()) {
        places_[rest[i]].bytes = made.record.size();
        made.record.resize(Padded(made.record.size()), '\0');
        file->Append(made.record);
      } else {
        RecordFailure(rest[i], made.failure);
      }
      Report(file->size(), static_cast<int64_t>(rest[i]) + 1);
    }
  }

  void RecordFailure(size_t entry, const std::string& reason) {
    places_[entry].failure = reason;
    report_.failed.push_back({request_.set->samples[entry].id, reason});
    const auto bad = static_cast<int64_t>(report_.failed.size());
    const auto all = static_cast<int64_t>(clips());
    if (bad < all && !TooManyBad(bad, all, request_.max_bad_share)) return;
    constexpr size_t kListed = 20;
    std::string list;
    for (size_t i = 0; i < std::min(kListed, report_.failed.size()); ++i) {
      list += "\n    " + report_.failed[i].id + ": " + report_.failed[i].reason;
    }
    throw Error(std::to_string(report_.failed.size()) + " of " + std::to_string(clips()) +
                    " clips cannot be read so far:" + list,
                "",
                "repair or remove them, or raise data.max_bad_share (now " +
                    std::to_string(request_.max_bad_share) + "); what is packed stays");
  }

  void Finish(ResumableFile* file) {
    header_.records_bytes = file->size() - header_.records_begin();
    const std::string index = EncodeIndex(places_);
    file->Append(index);
    header_.index_bytes = index.size();
    header_.index_hash = XxHash64(index);
    header_.complete = true;
    file->Flush();  // a header that says "complete" must never be on the disk before the rest
    file->Overwrite(0, EncodePackedHeader(header_));
    file->Commit();
  }

  void Report(uint64_t bytes, int64_t done) const {
    if (progress_) progress_({done, static_cast<int64_t>(clips()), bytes});
  }

  const PackRequest& request_;
  const MakePackedClip& make_;
  const std::function<void(const PackProgress&)>& progress_;
  const Annotations annotations_;
  std::string set_;
  PackedHeader header_;
  std::vector<PackedClipPlace> places_;  // [entries]
  std::vector<size_t> skipped_;          // clips without a record before the last one with
  size_t next_ = 0;                      // first clip that is not packed
  uint64_t end_ = 0;                     // of what is there and good
  PackReport report_;
};

}  // namespace

PackReport WritePackedStore(const PackRequest& request, const MakePackedClip& make,
                            const std::function<void(const PackProgress&)>& progress) {
  if (request.set->samples.empty()) throw Error("there is no clip to pack", request.path);
  return Packing(request, make, progress).Run();
}

}  // namespace kinefit
