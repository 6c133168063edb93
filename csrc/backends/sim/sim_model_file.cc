// SPDX-License-Identifier: Apache-2.0
#include "backends/sim/sim_model_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <span>
#include <string>

#include "core/tensor.h"

namespace gristmill {
namespace {

using Words = std::span<const std::string_view>;

std::vector<std::string_view> SplitWords(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  while (true) {
    const size_t begin = line.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const size_t length = std::min(line.find_first_of(kBlanks), line.size());
    words.push_back(line.substr(0, length));
    line.remove_prefix(length);
  }
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

std::string Quoted(std::string_view text) { return std::string("'").append(text).append("'"); }

template <typename Number>
bool EncodeNumber(std::string_view text, std::vector<std::byte>* element) {
  Number number{};
  if (!ParseNumber(text, &number)) return false;
  element->resize(sizeof(number));
  std::memcpy(element->data(), &number, sizeof(number));
  return true;
}

/// The element that `text` means in a tensor of `dtype`. 16-bit floats have no text form here.
bool EncodeElement(DataType dtype, std::string_view text, std::vector<std::byte>* element) {
  switch (dtype) {
    case DataType::kBool:
    case DataType::kUint8:
      return EncodeNumber<uint8_t>(text, element);
    case DataType::kUint16:
      return EncodeNumber<uint16_t>(text, element);
    case DataType::kUint32:
      return EncodeNumber<uint32_t>(text, element);
    case DataType::kUint64:
      return EncodeNumber<uint64_t>(text, element);
    case DataType::kInt8:
      return EncodeNumber<int8_t>(text, element);
    case DataType::kInt16:
      return EncodeNumber<int16_t>(text, element);
    case DataType::kInt32:
      return EncodeNumber<int32_t>(text, element);
    case DataType::kInt64:
      return EncodeNumber<int64_t>(text, element);
    case DataType::kFp32:
      return EncodeNumber<float>(text, element);
    case DataType::kFp64:
      return EncodeNumber<double>(text, element);
    case DataType::kBytes: {
      const auto bytes = std::as_bytes(std::span(text));
      element->assign(bytes.begin(), bytes.end());
      return true;
    }
    default:
      return false;
  }
}

class Parser {
 public:
  explicit Parser(SimModelFile* file) : file_(*file) {}

  /// "" or what is wrong with the statement.
  std::string Statement(Words words) {
    if (words[0] == "input") return Input(words.subspan(1));
    if (words[0] == "output") return Output(words.subspan(1));
    if (words[0] == "latency_us") return Latency(words.subspan(1));
    if (words[0] == "poison") return Poison(words.subspan(1));
    if (words[0] == "extra_rows") return ExtraRows(words.subspan(1));
    if (words[0] == "fail_every" && words.size() == 2 && ParseNumber(words[1], &file_.fail_every) &&
        file_.fail_every > 0) {
      return "";
    }
    if (words[0] == "fail_create_instance" && words.size() == 1) {
      file_.fail_create_instance = true;
      return "";
    }
    return "expected input, output, latency_us, poison, extra_rows, 'fail_every <number above 0>' or "
           "fail_create_instance, got " +
           Quoted(words[0]);
  }

 private:
  static std::string Spec(Words words, TensorSpec* spec) {
    if (words.size() < 2) return "expected a name, a type and dims";
    spec->name = words[0];
    spec->dtype = ParseDataType(words[1]);
    if (spec->dtype == DataType::kInvalid) return "unknown type " + Quoted(words[1]);
    for (std::string_view word : words.subspan(2)) {
      int64_t dim = 0;
      if (!ParseNumber(word, &dim) || dim < -1) return "expected a dimension, -1 or more, got " + Quoted(word);
      spec->dims.push_back(dim);
    }
    if (spec->dims.size() > Shape::kMaxRank) return "more than " + std::to_string(Shape::kMaxRank) + " dims";
    return "";
  }

  bool FindInput(std::string_view name, size_t* index) const {
    const auto& inputs = file_.signature.inputs;
    *index = static_cast<size_t>(std::ranges::find(inputs, name, &TensorSpec::name) - inputs.begin());
    return *index < inputs.size();
  }

  std::string Input(Words words) {
    TensorSpec spec;
    std::string problem = Spec(words, &spec);
    if (problem.empty()) file_.signature.inputs.push_back(std::move(spec));
    return problem;
  }

  std::string Output(Words words) {
    const auto equals = std::ranges::find(words, "=");
    const Words rule(equals, words.end());
    TensorSpec spec;
    if (std::string problem = Spec(Words(words.begin(), equals), &spec); !problem.empty()) return problem;
    SimOutput output;
    if (rule.size() == 2 && rule[1] == "batch_rows") {
      output.function = SimFunction::kBatchRows;
      if (spec.dtype != DataType::kInt64) return "batch_rows gives INT64";
    } else if (rule.size() == 3 && (rule[1] == "identity" || rule[1] == "row_sum")) {
      if (!FindInput(rule[2], &output.input)) return "no input " + Quoted(rule[2]) + " above this line";
      if (file_.signature.inputs[output.input].dtype != spec.dtype) return "input and output differ in type";
      output.function = rule[1] == "identity" ? SimFunction::kIdentity : SimFunction::kRowSum;
      if (output.function == SimFunction::kRowSum &&
          (ElementSizeBytes(spec.dtype) == 0 || spec.dtype == DataType::kBool || spec.dtype == DataType::kFp16 ||
           spec.dtype == DataType::kBf16)) {
        return "row_sum takes integers, FP32 and FP64";
      }
    } else {
      return "expected '= identity <input>', '= row_sum <input>' or '= batch_rows' after the dims";
    }
    file_.signature.outputs.push_back(std::move(spec));
    file_.outputs.push_back(output);
    return "";
  }

  std::string Latency(Words words) {
    if (words.empty() || !file_.latency.empty()) return "expected one latency_us line with at least one rows:us";
    for (std::string_view word : words) {
      const size_t colon = std::min(word.find(':'), word.size() - 1);
      SimLatencyPoint point;
      if (!ParseNumber(word.substr(0, colon), &point.rows) || !ParseNumber(word.substr(colon + 1), &point.us) ||
          point.us < 0 || (!file_.latency.empty() && file_.latency.back().rows >= point.rows)) {
        return "expected rows:us, rows ascending, got " + Quoted(word);
      }
      file_.latency.push_back(point);
    }
    return "";
  }

  std::string Poison(Words words) {
    SimPoison poison;
    if (words.size() != 2) return "expected 'poison <input> <element>'";
    if (!FindInput(words[0], &poison.input)) return "no input " + Quoted(words[0]) + " above this line";
    const DataType dtype = file_.signature.inputs[poison.input].dtype;
    if (!EncodeElement(dtype, words[1], &poison.element)) {
      return Quoted(words[1]) + " is no element that can be written for type " + std::string(DataTypeName(dtype));
    }
    file_.poisons.push_back(std::move(poison));
    return "";
  }

  std::string ExtraRows(Words words) {
    if (words.size() != 2) return "expected 'extra_rows <output> <number>'";
    const auto& outputs = file_.signature.outputs;
    const auto found = std::ranges::find(outputs, words[0], &TensorSpec::name);
    if (found == outputs.end()) return "no output " + Quoted(words[0]) + " above this line";
    if (found->dims.empty()) return "an output without dimensions has no rows";
    SimOutput& output = file_.outputs[static_cast<size_t>(found - outputs.begin())];
    if (!ParseNumber(words[1], &output.extra_rows)) return "expected a number, got " + Quoted(words[1]);
    return "";
  }

  SimModelFile& file_;
};

}  // namespace

Status ParseSimModelFile(std::string_view text, SimModelFile* file) {
  SimModelFile parsed;
  Parser parser(&parsed);
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t length = std::min(text.find('\n'), text.size());
    const std::vector<std::string_view> words = SplitWords(text.substr(0, length));
    text.remove_prefix(std::min(length + 1, text.size()));
    const std::string problem = words.empty() ? "" : parser.Statement(words);
    if (!problem.empty()) return InvalidArgument("line " + std::to_string(number) + ": " + problem);
  }
  if (parsed.signature.inputs.empty() || parsed.signature.outputs.empty()) {
    return InvalidArgument("expected at least one input and one output");
  }
  *file = std::move(parsed);
  return Status::Ok();
}

int64_t SimLatencyNs(const std::vector<SimLatencyPoint>& profile, int64_t rows) {
  constexpr int64_t kNsPerUs = 1000;
  if (profile.empty()) return 0;
  if (rows <= profile.front().rows || profile.size() == 1) return profile.front().us * kNsPerUs;
  auto after = std::ranges::lower_bound(profile, rows, {}, &SimLatencyPoint::rows);
  if (after == profile.end()) --after;
  const SimLatencyPoint& to = *after;
  const SimLatencyPoint& from = *(after - 1);
  const int64_t ns = from.us * kNsPerUs + (to.us - from.us) * kNsPerUs * (rows - from.rows) / (to.rows - from.rows);
  return std::max<int64_t>(ns, 0);
}

}  // namespace gristmill
