// Kernels of products in bf16, compiled once for every instruction set, and again for sets with bf16 instructions:
// HR_BF16_DOT enables instructions for words, and HR_BF16_TILES enables instructions for tiles, which have one order of
// sums. Only the tables have external linkage.
#include "../core/bf16.hpp"
#include "../core/set_name.hpp"

#include "bf16_products-inl.hpp"
#include "bf16_rounding-inl.hpp"
#ifdef HR_BF16_TILES
#include "bf16_tiles-inl.hpp"
#endif

namespace headrace {
namespace {

template <class O, int P>
constexpr Bf16Kernels by_vectors = [] {
    using F = typename O::Format;
    using Rows = typename O::RowFormat;
    constexpr bool apart = F::values != Rows::values;
    return Bf16Kernels{
        {P, O::waits, O::step, O::quad, O::template planes<P>, 2 / F::values, 2 / Rows::values, row_block,
         O::waits && P == 1, apart},
        round_lines<F, P>,
        vector_product<O, P>,
        round_row<Rows, P>,
        add_inputs<O, P>,
        finish_units<O, P>,
        round_weights<Rows, P>,
        apart ? round_weights<F, P> : nullptr,
        round_columns<F, P, O::step>,
        round_gradients<F, P>,
        column_product<O, P>,
        row_words_of<F, P>,
        word_panels<F, P>,
        vector_weight_product<O, P>,
    };
}();

#ifdef HR_BF16_TILES
template <int P>
constexpr Bf16Kernels by_tiles = [] {
    Bf16Kernels kernels = by_vectors<StepOrder, P>;
    kernels.layout.words = 1;
    kernels.layout.units = tile_units;
    kernels.layout.waits = false;
    kernels.layout.apart = true;
    kernels.layout.settles = true;
    kernels.round_lines = round_lines<TileWords, P>;
    kernels.product = amx_product<P>;
    kernels.round_tile_weights = round_weight_tiles<P>;
    kernels.round_columns = round_column_tiles<P>;
    kernels.round_gradients = round_gradients<TileWords, P>;
    kernels.columns = tile_column_product<P>;
    kernels.row_words = row_words_of<TileWords, P>;
    kernels.panels = word_panels<TileWords, P>;
    kernels.weights = tile_weight_product<P>;
    kernels.begin = begin_tiles;
    kernels.end = end_tiles;
    return kernels;
}();
#endif

}  // namespace

#ifdef HR_BF16_TILES
extern const Bf16Kernels HR_JOIN(bf16_steps_, HR_ISA)[most_bf16_parts];
const Bf16Kernels HR_JOIN(bf16_steps_, HR_ISA)[most_bf16_parts] = {by_tiles<1>, by_tiles<2>, by_tiles<3>};
#else
extern const Bf16Kernels HR_JOIN(bf16_pairs_, HR_ISA)[most_bf16_parts];
const Bf16Kernels HR_JOIN(bf16_pairs_, HR_ISA)[most_bf16_parts] = {by_vectors<PairOrder, 1>, by_vectors<PairOrder, 2>,
                                                                   by_vectors<PairOrder, 3>};
extern const Bf16Kernels HR_JOIN(bf16_steps_, HR_ISA)[most_bf16_parts];
const Bf16Kernels HR_JOIN(bf16_steps_, HR_ISA)[most_bf16_parts] = {by_vectors<StepOrder, 1>, by_vectors<StepOrder, 2>,
                                                                   by_vectors<StepOrder, 3>};
#endif

}  // namespace headrace
