"""Rotations: products with the matrix, refused matrices, and the distribution of random rotations."""

import numpy as np
import pytest

import cases
import headrace as hr


@pytest.mark.parametrize("features", [1, 2, 3, 17, 64])
def test_both_directions_are_the_products(features, dtype):
    matrix = hr.transforms.Rotation.random(features, seed=features).matrix
    t = hr.transforms.Rotation(matrix)
    for rows in cases.BATCH_SIZES:
        z = cases.rows(rows, features, dtype)
        for got, want in ((t.forward(z), z @ matrix.T), (t.inverse(z), z @ matrix)):
            cases.assert_matches(got, (want, np.zeros(rows)), z, dtype)
            assert not got[1].any()


def test_a_reflection_counts(dtype):
    z = cases.rows(9, 2, dtype)
    x, log_det = hr.transforms.Rotation([[0, 1], [1, 0]]).forward(z)
    np.testing.assert_allclose(x, z[:, ::-1], rtol=1e-6)
    assert not log_det.any()


def test_the_inverse_undoes_a_rotation(dtype):
    t = hr.transforms.Rotation.random(10, seed=0)
    z = cases.rows(50, 10, dtype)
    cases.assert_close(t.inverse(t.forward(z)[0])[0], z)


def test_gradients_turn_back(dtype):
    t = hr.transforms.Rotation.random(5, seed=1)
    z, grad = cases.rows(20, 5, dtype), cases.rows(20, 5, dtype, "grad")
    (got,) = t.forward_vjp(z, grad, np.ones(20, dtype), wrt=("inputs",))
    cases.assert_close(got, grad.astype(float) @ t.matrix)
    (got,) = t.inverse_vjp(z, grad, np.ones(20, dtype), wrt=("inputs",))
    cases.assert_close(got, grad.astype(float) @ t.matrix.T)


def test_a_poisoned_row_leaves_all_others_alone(dtype):
    t = hr.transforms.Rotation.random(4, seed=2)
    z = cases.rows(50, 4, dtype)
    want = t.forward(z)
    z[20, 1] = np.nan
    got = t.forward(z)
    others = np.arange(50) != 20
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
        assert np.isnan(result[20]).all()


def test_random_rotations_have_haar_s_measure():
    """Haar's measure: entries have mean 0 and variance 1/n, the determinant has both signs, and the seed matters."""
    matrices = np.array([hr.transforms.Rotation.random(3, seed=s).matrix for s in range(2000)])
    np.testing.assert_allclose(
        matrices.transpose(0, 2, 1) @ matrices, np.broadcast_to(np.eye(3), (2000, 3, 3)), atol=1e-12
    )
    assert np.abs(matrices.mean(0)).max() < 5 / np.sqrt(3 * 2000)
    np.testing.assert_allclose((matrices**2).mean(0), 1 / 3, atol=0.04)
    assert abs(np.mean(np.linalg.det(matrices) > 0) - 0.5) < 0.06
    assert np.array_equal(matrices[0], hr.transforms.Rotation.random(3, seed=0).matrix)
    assert not np.array_equal(matrices[0], matrices[1])


def test_the_matrix_is_copied_in_double_precision():
    given = hr.transforms.Rotation.random(3, seed=0).matrix.copy()
    t = hr.transforms.Rotation(given)
    assert t.matrix.dtype == np.float64
    given[0] = 7.0
    assert t.matrix[0, 0] != 7.0
    with pytest.raises(ValueError, match="read-only"):
        t.matrix[0, 0] = 1.0
    assert t.parameters.size == 0
    assert repr(t) == "Rotation(3 x 3)"


@pytest.mark.parametrize(
    ("matrix", "kind", "words"),
    [
        (np.eye(2) * 1.001, ValueError, ["orthogonal", "0.002"]),
        ([[1.0, 0.0], [1.0, 0.0]], ValueError, ["orthogonal"]),
        (np.full((2, 2), np.nan), ValueError, ["orthogonal", "nan"]),
        (np.ones((2, 3)), ValueError, [r"\(n, n\)", r"\(2, 3\)"]),
        (np.ones(4), ValueError, [r"\(4,\)"]),
        (np.ones((0, 0)), ValueError, [r"\(0, 0\)"]),
        (np.eye(2, dtype=complex), TypeError, ["array of numbers", "complex"]),
        ("eye", TypeError, ["array of numbers", "str"]),
        (None, TypeError, ["array of numbers", "NoneType"]),
    ],
    ids=str,
)
def test_matrices_that_are_no_rotations_are_refused(matrix, kind, words):
    with pytest.raises(kind) as error:
        hr.transforms.Rotation(matrix)
    cases.assert_says(error, "matrix: ", *words)


@pytest.mark.parametrize("features", [0, -1, 2.5, 2**13 + 1])
def test_sizes_are_checked(features):
    with pytest.raises((TypeError, ValueError), match="features: expected"):
        hr.transforms.Rotation.random(features)


# ---- in blocks -------------------------------------------------------------------------------------------------------

# (features, block): multiples of a tile's register block and other sizes, also a single block, and blocks of one.
SHAPES = [(1, 32), (5, 32), (32, 32), (33, 32), (7, 3), (9, 1), (200, 32), (70, 64)]


@pytest.mark.parametrize(("features", "block"), SHAPES)
def test_blocks_are_the_products_with_the_whole_matrix(features, block, dtype):
    t = hr.transforms.Rotation.random(features, seed=features, block=block)
    assert [len(b) for b in t.blocks] == [min(block, features - i) for i in range(0, features, block)]
    matrix = t.matrix
    assert matrix.shape == (features, features)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(features), atol=1e-12)
    assert np.count_nonzero(matrix) == sum(len(b) ** 2 for b in t.blocks)
    for rows in cases.BATCH_SIZES:
        z = cases.rows(rows, features, dtype)
        for got, want in ((t.forward(z), z @ matrix.T), (t.inverse(z), z @ matrix)):
            cases.assert_matches(got, (want, np.zeros(rows)), z, dtype)
    z, grad = cases.rows(70, features, dtype), cases.rows(70, features, dtype, "grad")
    cases.assert_close(t.inverse(t.forward(z)[0])[0], z)
    for call, want in ((t.forward_vjp, grad @ matrix), (t.inverse_vjp, grad @ matrix.T)):
        (got,) = call(z, grad, np.ones(70, dtype), wrt=("inputs",))
        cases.assert_close(got, want)


def in_blocks(block, dtype, context=0):
    """A chain in which permutations and networks of every reading order meet rotations, all of them random."""
    g, n = cases.rng("blocks", block), 11

    def permutation():
        return hr.transforms.Permutation(g.permutation(n).tolist())

    def rotation():
        return hr.transforms.Rotation.random(n, seed=g, block=block)

    both = {"context": context, "dtype": dtype}
    chain = [
        permutation(),
        rotation(),
        hr.transforms.Elementwise(n, map="dual_ascent", formula="to_latent", dtype=dtype),
        permutation(),
        permutation(),
        rotation(),
        hr.transforms.MaskedAutoregressive(n, (12,), order=g.permutation(n), **both),
        hr.transforms.Inverse(rotation()),
        hr.transforms.MaskedAutoregressive(n, (12,), reads="latent", order=g.permutation(n), **both),
        permutation(),
        rotation(),
        permutation(),
        hr.transforms.Planar(n, dtype=dtype),
        rotation(),
        rotation(),
        hr.transforms.Coupling(n, g.permutation(n)[:4].tolist(), (9,), **both),
        permutation(),
        hr.transforms.Inverse(rotation()),
        hr.transforms.Standardize(g.standard_normal(n), g.uniform(0.5, 2.0, n)),
        permutation(),
        rotation(),
        permutation(),
        hr.transforms.Standardize(g.standard_normal(n), g.uniform(0.5, 2.0, n)),
    ]
    return cases.randomise(hr.Flow(chain, dtype=dtype), 0.2, "blocks")


def as_dense(transform):
    """The chain with one dense matrix for each rotation."""
    if isinstance(transform, hr.transforms.Inverse):
        return hr.transforms.Inverse(as_dense(transform.transform))
    return hr.transforms.Rotation(transform.matrix) if isinstance(transform, hr.transforms.Rotation) else transform


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("block", [1, 2, 4, 10])
def test_a_chain_of_blocks_is_the_chain_of_their_matrices(block, context):
    """Values, log-determinants and all gradients agree in float64, in both directions; 1e-10 is the rounding of a chain
    of 23 transforms.
    """
    flow = in_blocks(block, "float64", context)
    dense = hr.Flow([as_dense(t) for t in flow.transforms], flow.base, dtype="float64")
    assert any(isinstance(t, hr.transforms.Rotation) and len(t.blocks) > 1 for t in flow.transforms)
    dense.parameters = flow.parameters
    x, given = cases.rows(150, 11, "float64"), cases.rows(150, context, "float64", "context") if context else None
    grad, grad_row = cases.rows(150, 11, "float64", "grad"), cases.rows(150, 1, "float64", "row")[:, 0]
    wrt = ("inputs", "parameters") + (("context",) if context else ())
    for rows in (0, 1, 7, 150):
        some = None if given is None else given[:rows]
        for verb in ("to_latent", "to_data"):
            for got, want in zip(
                getattr(flow, verb)(x[:rows], some), getattr(dense, verb)(x[:rows], some), strict=True
            ):
                np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
        for verb in ("to_latent_vjp", "to_data_vjp"):
            results = [
                getattr(f, verb)(x[:rows], grad[:rows], grad_row[:rows], context=some, wrt=wrt) for f in (flow, dense)
            ]
            for got, want in zip(*results, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    z = flow.to_latent(x, given)[0]
    np.testing.assert_allclose(flow.to_data(z, given)[0], x, atol=1e-9)
    for got, want in zip(flow.nll_and_grad(x, given), dense.nll_and_grad(x, given), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_gradients_through_blocks_are_those_of_differences():
    """Central differences of 1e-6 of a sum of values of order one have errors of some 1e-8."""
    flow, h = in_blocks(4, "float64"), 1e-6
    x = cases.rows(3, 11, "float64")
    grad, grad_row = cases.rows(3, 11, "float64", "grad"), np.array([0.5, -1.0, 2.0])

    def total(x):
        z, log_det = flow.to_latent(x)
        return (z * grad).sum() + (log_det * grad_row).sum()

    (got,) = flow.to_latent_vjp(x, grad, grad_row, wrt=("inputs",))
    for place in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[place] = h
        assert got[place] == pytest.approx((total(x + step) - total(x - step)) / (2 * h), abs=1e-6, rel=1e-6)


def test_blocks_give_the_same_bits_for_any_number_of_threads(dtype):
    flow, x = in_blocks(4, dtype), cases.rows(3000, 11, dtype)
    threads, results = hr.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            hr.set_num_threads(n)
            results.append((*flow.to_latent(x), *flow.to_data(x), *flow.nll_and_grad(x)))
    finally:
        hr.set_num_threads(threads)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            cases.assert_same_bits(np.asarray(got), np.asarray(want))


def test_a_poisoned_row_leaves_all_others_alone_in_blocks_too(dtype):
    flow, x = in_blocks(4, dtype), cases.rows(50, 11, dtype)
    want = flow.to_latent(x)
    x[20, 1] = np.inf
    got, others = flow.to_latent(x), np.arange(50) != 20
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
    assert np.isnan(got[1][20])


def test_one_block_is_the_whole_matrix():
    matrix = hr.transforms.Rotation.random(5, seed=3).matrix
    t = hr.transforms.Rotation.from_blocks([matrix])
    assert t.matrix is t.blocks[0]
    assert np.array_equal(t.matrix, matrix)
    assert repr(t) == "Rotation(5 x 5)"
    assert np.array_equal(hr.transforms.Rotation.random(5, seed=3, block=9).matrix, matrix)


def test_blocks_are_copied():
    t = hr.transforms.Rotation.from_blocks([np.eye(2), [[-1]]])
    assert repr(t) == "Rotation(3 x 3, 2 blocks)"
    assert t.features == 3
    assert t.matrix.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]
    for array in (t.matrix, *t.blocks):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 2.0


@pytest.mark.parametrize(
    ("blocks", "kind", "words"),
    [
        (3, TypeError, ["blocks: expected a sequence of matrices", "int"]),
        ("eye", TypeError, ["blocks: expected a sequence of matrices", "str"]),
        (None, TypeError, ["blocks: expected a sequence of matrices", "NoneType"]),
        ([], ValueError, ["blocks: expected from 1 to 8192 features in all", "0"]),
        ([np.eye(1)] * 8193, ValueError, ["blocks: expected from 1 to 8192 features in all", "8193"]),
        ([np.eye(2), np.ones((2, 2))], ValueError, [r"blocks\[1\]: expected an orthogonal"]),
        ([np.eye(2), np.ones((2, 3))], ValueError, [r"blocks\[1\]: expected shape", r"\(2, 3\)"]),
        ([np.eye(2), None], TypeError, [r"blocks\[1\]: expected an array of numbers", "NoneType"]),
        (np.eye(2), ValueError, [r"blocks\[0\]: expected shape", r"\(2,\)"]),
    ],
    ids=str,
)
def test_wrong_blocks_are_refused(blocks, kind, words):
    with pytest.raises(kind) as error:
        hr.transforms.Rotation.from_blocks(blocks)
    cases.assert_says(error, *words)


@pytest.mark.parametrize("block", [0, -1, 1.5, True, "32"])
def test_the_width_of_blocks_is_checked(block):
    with pytest.raises((TypeError, ValueError), match="block: expected"):
        hr.transforms.Rotation.random(4, block=block)
