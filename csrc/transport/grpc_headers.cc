// SPDX-License-Identifier: Apache-2.0
#include "transport/grpc_headers.h"

#include <array>
#include <limits>

namespace gristmill {
namespace {

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoDigit = 0xff;

constexpr std::array<uint8_t, 256> Base64Digits() {
  std::array<uint8_t, 256> digits{};
  digits.fill(kNoDigit);
  for (size_t i = 0; i < kBase64.size(); ++i) digits[static_cast<uint8_t>(kBase64[i])] = static_cast<uint8_t>(i);
  return digits;
}

int64_t NanosecondsOf(char unit) {
  switch (unit) {
    case 'H':
      return 3'600'000'000'000;
    case 'M':
      return 60'000'000'000;
    case 'S':
      return 1'000'000'000;
    case 'm':
      return 1'000'000;
    case 'u':
      return 1'000;
    case 'n':
      return 1;
    default:
      return 0;
  }
}

}  // namespace

std::optional<int64_t> ParseGrpcTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  const int64_t unit_ns = NanosecondsOf(text.back());
  if (unit_ns == 0) return std::nullopt;
  int64_t value = 0;
  for (char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    value = value * 10 + (digit - '0');
  }
  int64_t ns = 0;
  return __builtin_mul_overflow(value, unit_ns, &ns) ? std::numeric_limits<int64_t>::max() : ns;
}

std::string PercentEncode(std::string_view message) {
  std::string encoded;
  encoded.reserve(message.size());
  for (size_t i = 0; i < message.size(); ++i) {
    const auto byte = static_cast<uint8_t>(message[i]);
    const bool is_outer_blank = byte == ' ' && (i == 0 || i + 1 == message.size());
    if (byte >= 0x20 && byte <= 0x7e && byte != '%' && !is_outer_blank) {
      encoded += message[i];
    } else {
      constexpr std::string_view kHex = "0123456789ABCDEF";
      encoded += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return encoded;
}

std::string Base64Encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  int count = 0;
  for (char c : bytes) {
    bits = bits << 8 | static_cast<uint8_t>(c);
    for (count += 8; count >= 6; count -= 6) text += kBase64[(bits >> (count - 6)) & 63];
  }
  if (count > 0) text += kBase64[(bits << (6 - count)) & 63];
  return text;
}

std::optional<std::string> Base64Decode(std::string_view text) {
  static constexpr std::array<uint8_t, 256> kDigits = Base64Digits();
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    const uint8_t digit = kDigits[static_cast<uint8_t>(c)];
    if (digit == kNoDigit) return std::nullopt;
    bits = bits << 6 | digit;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count);
  }
  return bytes;
}

}  // namespace gristmill
