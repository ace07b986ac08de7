"""Pictures of a posterior: what they show of it, not how it looks."""

import builtins

import matplotlib
import numpy as np
import pytest

import inference as inf

matplotlib.use("Agg")
RNG = np.random.default_rng(0)


@pytest.fixture
def posterior():
    draws = {"mu": RNG.normal(size=(2, 50)), "theta": RNG.normal(size=(2, 50, 3))}
    diverging = np.zeros((2, 50), bool)
    diverging[0, [3, 30]] = True
    yield inf.Posterior(draws, {"energy": RNG.normal(size=(2, 50)), "diverging": diverging})
    matplotlib.pyplot.close("all")


def test_the_overview_has_a_row_for_each_scalar_and_marks_divergences(posterior):
    axes = np.reshape(posterior.plot().axes, (4, 2))
    assert [a.get_ylabel() for a in axes[:, 0]] == ["mu", "theta[0]", "theta[1]", "theta[2]"]
    traces, marks = axes[0, 1].lines[:2], axes[0, 1].lines[2]
    np.testing.assert_array_equal([line.get_ydata() for line in traces], posterior["mu"])
    np.testing.assert_array_equal(marks.get_xdata(), [3, 30])


def test_names_choose_the_scalars(posterior):
    assert [a.get_ylabel() for a in posterior.plot("theta").axes[::2]] == ["theta[0]", "theta[1]", "theta[2]"]
    with pytest.raises(KeyError, match="no site 'tau' in this posterior"):
        posterior.plot("tau")


def test_pairs_show_every_draw_and_the_divergent_ones_on_top(posterior):
    axes = np.reshape(posterior.plot_pairs("mu", "theta").axes, (4, 4))
    all_draws, divergent = axes[2, 0].lines
    assert len(all_draws.get_xdata()) == 100
    np.testing.assert_array_equal(divergent.get_xdata(), posterior["mu"][0, [3, 30]])
    np.testing.assert_array_equal(divergent.get_ydata(), posterior["theta"][0, [3, 30], 1])


def test_energies(posterior):
    legend = posterior.plot_energy().axes[0].get_legend()
    assert legend.get_title().get_text().startswith("E-BFMI ")
    with pytest.raises(ValueError, match="this posterior has no energies"):
        inf.Posterior(posterior.draws).plot_energy()


def test_without_matplotlib_a_sentence_says_what_to_install(posterior, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"^plots need matplotlib, which is not installed: pip install matplotlib\.$"):
        posterior.plot()
