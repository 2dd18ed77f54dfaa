"""Advice on a listed model: against predictions made one by one, and for inputs that can have no effect."""

import pytest

from gradwire.analysis.advice import models
from gradwire.analysis.advice.choice import UNCOMPRESSED
from gradwire.analysis.advice.data import advice_data
from gradwire.analysis.advice.models import BASELINES, CANDIDATES, advise_model, bucket_jobs
from gradwire.analysis.advice.text import lines
from gradwire.analysis.predictions import Price
from gradwire.analysis.verdict import TIE
from gradwire.compressors.base import SchemeError
from gradwire.compressors.errors import InputError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.step.synthetic import Cache

SCHEMES = ["ef(topk(density=0.01))", "ef(randomblock(density=0.01))"]
MIB = 2**20


def job(**sections):
    return make_job({"model": "resnet50", "training": {"workers": 16}} | sections)


@pytest.fixture(scope="module")
def advice():
    return advise_model(job(), SCHEMES, Price(3.6, "EUR", 1000))


@pytest.fixture(scope="module")
def cache():
    return Cache()


def test_the_baseline_is_the_best_of_every_uncompressed_prediction(advice, cache):
    expected = {
        (scheme, mib * MIB): predict(
            job(scheme=scheme, training={"workers": 16, "bucket": f"{mib} MiB"}), cache=cache
        ).step_s
        for scheme in BASELINES
        for mib in (1, 5, 25, 100)
    }
    assert {(t.scheme, t.bucket_bytes): t.seconds for t in advice.trials} == pytest.approx(expected, rel=1e-12)
    best = min(expected, key=lambda key: expected[key])
    base = advice.option(advice.baseline)
    assert (base.scheme, base.bucket_bytes, base.step_s) == (*best, pytest.approx(expected[best], rel=1e-12))


def test_options_are_predictions(advice, cache):
    assert [option.scheme for option in advice.options] == [*BASELINES, *SCHEMES]
    base_s = advice.option(advice.baseline).step_s
    for scheme in SCHEMES:
        own = [predict(one, cache=cache) for one in bucket_jobs(job(scheme=scheme))]
        alone, option = min(own, key=lambda one: one.step_s), advice.option(scheme)
        assert option.bucket_bytes == alone.job.training.bucket
        assert option.step_s == pytest.approx(alone.step_s, rel=1e-12)
        assert option.compute_s + option.codec_s + option.exposed_s == pytest.approx(option.step_s, rel=1e-12)
        assert option.affordable == pytest.approx(base_s / alone.step_s - 1, rel=1e-12)
        assert (option.gain.ratio, option.gain.low) == (pytest.approx(base_s / alone.step_s, rel=1e-12), None)
        assert option.memory.state_bytes == 4 * 25_557_032
        costs = advice.costs(option)
        assert (costs.step, costs.run, costs.target) == (
            pytest.approx(16 * alone.step_s * 0.001, rel=1e-12), pytest.approx(16 * alone.step_s, rel=1e-12), None,
        )  # fmt: skip


def test_the_answer_and_what_it_hangs_on(advice):
    assert (advice.answer, advice.best) == ("compress", SCHEMES[1])
    assert advice.error.error == 0.03
    silent = {effect.key for effect in advice.effects if not effect.has_effect}
    assert silent == {"training.first_bucket", "device.peak", "device.efficiency"}
    flips = {t.key: c for t in advice.tippings for c in t.changes if c.flips}
    assert flips["cluster.bandwidth"].leader == UNCOMPRESSED
    assert [flip.flips for flip in advice.flips] == [False, False]
    assert "randomblock" in advice.option(SCHEMES[1]).estimated
    assert advice.option("dense(dtype=fp32)").estimated == ()


def block(advice, training=None, **sections):
    """Return the job of the advised scheme, in its buckets."""
    bucket = f"{advice.option(SCHEMES[1]).bucket_bytes // MIB} MiB"
    plan = (training or {"workers": 16}) | {"bucket": bucket}
    return job(scheme=SCHEMES[1], training=plan, **sections)


@pytest.mark.parametrize(("side", "answer"), [(0.99, "compress"), (1.01, "do not")])
def test_the_answer_flips_where_it_is_said_to(advice, cache, side, answer):
    """Directly, with a cluster of another bandwidth; the lead must be more than a tie."""
    (change,) = (c for t in advice.tippings if t.key == "cluster.bandwidth" for c in t.changes if c.flips)
    cluster = {"preset": "ethernet-10g", "bandwidth": f"{9.41 * change.factor * side} Gbit/s"}

    def step_s(scheme):
        return min(predict(one, cache=cache).step_s for one in bucket_jobs(job(scheme=scheme, cluster=cluster)))

    dense_s = min(map(step_s, BASELINES))
    block_s = predict(block(advice, cluster=cluster), cache=cache).step_s
    assert ("compress" if dense_s > TIE * block_s else "do not") == answer


def test_effects_are_those_of_such_jobs(advice, cache):
    """Half as much more bandwidth, with buckets chosen anew; a batch of 48 instead of 32, with buckets kept."""
    found = {effect.key: effect.gain for effect in advice.effects}
    cluster = {"preset": "ethernet-10g", "bandwidth": f"{1.5 * 9.41} Gbit/s"}
    dense_s = min(
        predict(one, cache=cache).step_s for s in BASELINES for one in bucket_jobs(job(scheme=s, cluster=cluster))
    )
    own_s = predict(block(advice, cluster=cluster), cache=cache).step_s
    assert found["cluster.bandwidth"] == pytest.approx(dense_s / own_s, rel=1e-9)
    bucket = f"{advice.option(advice.baseline).bucket_bytes // MIB} MiB"
    larger = {"workers": 16, "batch_size": 48}
    base_s = predict(job(scheme=advice.baseline, training=larger | {"bucket": bucket}), cache=cache).step_s
    own_s = predict(block(advice, training=larger), cache=cache).step_s
    assert found["training.batch_size"] == pytest.approx(base_s / own_s, rel=1e-9)


def test_lines_and_data(advice):
    said = dict(lines(advice))
    assert said["step of ef(randomblock(density=0.01))"].startswith("97 % the model's own work")
    assert "device.peak" in said["without effect"]
    assert "within 3 % of measurements (github.com/HKBU-HPML/ddl-benchmarks" in said["model error"]
    assert "cluster.bandwidth from" in said["another answer"]
    assert "cluster.launch" in said["same answer within 16 times"]
    assert f"three times larger, {SCHEMES[1]} leads (1.1" in said["costs that nobody measured"]
    assert said["costs that nobody measured"].count("the answer stays") == 2
    data = advice_data(advice)
    assert data["verdict"].startswith("Compress, if training then needs less than ")
    assert data["options"][3]["memory"]["total_bytes"] == advice.options[3].memory.total_bytes
    assert data["options"][3]["costs"]["run"] == pytest.approx(16 * advice.options[3].step_s)
    assert data["price"] == {"per_gpu_hour": 3.6, "currency": "EUR", "steps": 1000}


def test_a_fast_network_is_not_worth_it_and_sensitivity_can_be_left_out():
    made = advise_model(job(cluster={"preset": "infiniband-200g"}), [SCHEMES[0]], sensitivity=False)
    assert made.answer == "do not compress"
    assert made.option(SCHEMES[0]).affordable < 0
    assert (made.effects, made.tippings) == ((), ())
    assert len(made.flips) == 2
    assert made.error is None
    assert "not known" in dict(lines(made))["model error"]


def test_defaults_leave_out_what_cannot_take_the_units(monkeypatch):
    assert all(str(parse_scheme(text)) == text for text in CANDIDATES)
    monkeypatch.setattr(models, "CANDIDATES", ("ef(powersgd(rank=1))", "ef(randomblock(density=0.01))"))
    small = make_job({"model": "resnet18", "training": {"unit": "bucket"}})
    made = advise_model(small, sensitivity=False)
    assert [option.scheme for option in made.options] == [*BASELINES, "ef(randomblock(density=0.01))"]
    assert made.notes == ("Left out, since they cannot take units of training.unit = bucket: ef(powersgd(rank=1)).",)
    with pytest.raises(SchemeError, match=r"training.unit = 'bucket': powersgd\(rank=4\) works on layer only"):
        advise_model(small, ["powersgd(rank=4)"])


def test_what_compresses_buckets_keeps_them():
    made = advise_model(
        make_job({"model": "resnet18", "training": {"unit": "bucket", "bucket": "5 MiB"}}),
        ["ef(randomblock(density=0.01))"],
        sensitivity=False,
    )
    assert made.option("ef(randomblock(density=0.01))").bucket_bytes == 5 * MIB
    assert {trial.bucket_bytes for trial in made.trials} == {MIB, 5 * MIB, 25 * MIB, 100 * MIB}


def test_without_buckets_there_is_nothing_to_tune():
    assert len(bucket_jobs(job(training={"message": "model"}))) == 1
    sizes = [one.training.bucket for one in bucket_jobs(job(training={"bucket": "7 MiB", "first_bucket": "2 MiB"}))]
    assert sizes == [7 * MIB, MIB, 5 * MIB, 25 * MIB, 100 * MIB]
    firsts = [one.training.first_bucket for one in bucket_jobs(job(training={"first_bucket": "2 MiB"}))]
    assert firsts == [2 * MIB, MIB, 2 * MIB, 2 * MIB]


def test_bad_schemes_are_refused():
    with pytest.raises(InputError, match="topc"):
        advise_model(job(), ["topc"])
