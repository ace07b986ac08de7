"""Runs: packing, failed runs, room for more, sentences."""

import jax.numpy as jnp
import numpy as np
import pytest

from surrogates.emulators.runs import Runs

X = np.arange(12.0).reshape(4, 3)
Y = np.arange(8.0).reshape(4, 2)
NAMES, SHAPES = ("a", "b"), ((), (2,))


def test_arguments_are_packed_and_unpacked():
    runs = Runs.of(X, Y, names=NAMES, shapes=SHAPES)
    a, b = runs.unpack(runs.x[1])
    assert a.shape == () and b.shape == (2,) and a == 3.0
    np.testing.assert_array_equal(runs.pack(a, b), X[1])
    assert runs.columns == ("a", "b[0]", "b[1]") and Runs.of(X, Y).columns == ("x0", "x1", "x2")
    matrix = Runs.of(np.zeros((1, 6)), np.zeros(1), names=("m",), shapes=((2, 3),))
    assert matrix.columns[-1] == "m[1,2]" and matrix.unpack(matrix.x[0])[0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"shapes \[\(\), \(2,\)\], as in the runs, got \[\(\), \(3,\)\]"):
        runs.pack(1.0, jnp.zeros(3))


def test_a_run_that_is_not_finite_has_failed_and_leaves_no_trace():
    y = Y.copy()
    y[2, 1] = np.nan
    y[3, 0] = np.inf
    runs = Runs.of(X, y)
    np.testing.assert_array_equal(runs.here, [True, True, False, False])
    assert runs.num == 2 and runs.tried.all() and jnp.isfinite(runs.y).all() and not runs.y[2:].any()


def test_room_is_filled_in_order_and_failed_runs_keep_their_rows():
    runs = Runs.none(NAMES, SHAPES, (2,), 6).add(X[:2], [[1.0, np.nan], [3.0, 4.0]])
    assert runs.x.shape == (6, 3) and runs.num == 1
    runs = runs.add(X[2:], Y[2:])
    np.testing.assert_array_equal(runs.here, [False, True, True, True, False, False])
    np.testing.assert_array_equal(runs.tried, [True, True, True, True, False, False])
    np.testing.assert_array_equal(runs.x[:4], X)
    np.testing.assert_array_equal(runs.y[2:4], Y[2:])
    more = runs.add(X, Y)  # eight runs in six rows: there is twice the room
    assert more.x.shape == (12, 3) and more.num == 7 and int(more.tried.sum()) == 8
    assert Runs.of(X, Y).room(3).x.shape == (4, 3) and Runs.of(X, Y).room(9).y.shape == (9, 2)
    assert Runs.none(NAMES, SHAPES, (2,), 0).add(X, Y).num == 4


def test_sentences():
    with pytest.raises(ValueError, match=r"expected inputs \(n, d\).*got \(4,\) and \(4, 2\).*x\[:, None\]"):
        Runs.of(X[:, 0], Y)
    with pytest.raises(ValueError, match=r"got \(4, 3\) and \(3, 2\)"):
        Runs.of(X, Y[:3])
    with pytest.raises(ValueError, match=r"inputs must be finite, got nan in row 1, column 2"):
        Runs.of(np.where(X == 5.0, np.nan, X), Y)
    with pytest.raises(ValueError, match=r"\['a'\] of shapes \[\(2,\)\] do not make the 3 columns"):
        Runs.of(X, Y, names=("a",), shapes=((2,),))
    with pytest.raises(ValueError, match=r"outputs of shape \(2,\), got \(3,\)"):
        Runs.of(X, Y).add(X, X)
