// SPDX-License-Identifier: Apache-2.0
#include "transport/session_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

namespace gristmill {
namespace {

SessionMemory* Self(void* user_data) { return static_cast<SessionMemory*>(user_data); }

}  // namespace

SessionMemory::SessionMemory()
    : functions_{.mem_user_data = this,
                 .malloc = [](size_t size, void* self) { return Self(self)->Allocate(size); },
                 .free = [](void* block, void* self) { Self(self)->Release(block); },
                 .calloc =
                     [](size_t count, size_t size, void* self) {
                       if (size > 0 && count > std::numeric_limits<size_t>::max() / size)
                         return static_cast<void*>(nullptr);
                       void* block = Self(self)->Allocate(count * size);
                       if (block != nullptr) std::memset(block, 0, count * size);
                       return block;
                     },
                 .realloc = [](void* block, size_t size, void* self) { return Self(self)->Resize(block, size); }} {}

SessionMemory::~SessionMemory() {
  for (Header* header : free_) {
    while (header != nullptr) std::free(std::exchange(header, header->next));
  }
}

void* SessionMemory::Allocate(size_t size) {
  const size_t size_class = std::min((std::max<size_t>(size, 1) - 1) / kStep, kClasses);
  Header* header = free_[size_class];
  if (header != nullptr) {
    free_[size_class] = header->next;
  } else {
    const size_t capacity = size_class < kClasses ? (size_class + 1) * kStep : size;
    if (capacity > std::numeric_limits<size_t>::max() - sizeof(Header)) return nullptr;
    header = static_cast<Header*>(std::malloc(sizeof(Header) + capacity));
    if (header == nullptr) return nullptr;
    header->size_class = size_class;
  }
  return header + 1;
}

void SessionMemory::Release(void* block) {
  if (block == nullptr) return;
  Header* header = static_cast<Header*>(block) - 1;
  if (header->size_class == kClasses) return std::free(header);
  header->next = free_[header->size_class];
  free_[header->size_class] = header;
}

void* SessionMemory::Resize(void* block, size_t size) {
  if (block == nullptr) return Allocate(size);
  Header* header = static_cast<Header*>(block) - 1;
  if (header->size_class == kClasses && size > kClasses * kStep) {
    header = static_cast<Header*>(std::realloc(header, sizeof(Header) + size));
    return header != nullptr ? header + 1 : nullptr;
  }
  const size_t capacity = header->size_class < kClasses ? (header->size_class + 1) * kStep : kClasses * kStep;
  if (size <= capacity && header->size_class < kClasses) return block;
  void* moved = Allocate(size);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, block, std::min(size, capacity));
  Release(block);
  return moved;
}

}  // namespace gristmill
