#include "generator.h"

#include "card.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GeneratorImpl.h>

#include <utility>

namespace simgpu {
namespace {

class CardGenerator final : public c10::GeneratorImpl {
 public:
  explicit CardGenerator(at::Generator inner)
      : c10::GeneratorImpl(card(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)), inner(std::move(inner)) {}

  void set_current_seed(uint64_t seed) override {
    inner.set_current_seed(seed);
  }
  void set_offset(uint64_t offset) override {
    inner.set_offset(offset);
  }
  uint64_t get_offset() const override {
    return inner.get_offset();
  }
  uint64_t current_seed() const override {
    return inner.current_seed();
  }
  uint64_t seed() override {
    return inner.seed();
  }
  void set_state(const c10::TensorImpl& state) override {
    inner.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return inner.unsafeGetGeneratorImpl()->get_state();
  }

  at::Generator inner;

 private:
  CardGenerator* clone_impl() const override {
    return new CardGenerator(inner.clone());
  }
};

} // namespace

at::Generator new_generator() {
  return at::make_generator<CardGenerator>(at::detail::createCPUGenerator());
}

const at::Generator& default_generator() {
  static const at::Generator* generator = new at::Generator(new_generator());
  return *generator;
}

at::Generator drawing(const at::Generator& generator) {
  if (generator.defined() && generator.device().type() == kCard) {
    return static_cast<CardGenerator*>(generator.unsafeGetGeneratorImpl())->inner;
  }
  return generator;
}

} // namespace simgpu
