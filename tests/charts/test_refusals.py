"""Bad values end the installation before anything is made, with a message that names the value and the way out."""

from __future__ import annotations

import pytest

from charts.tools import KEDA, HelmError, Object, render

SCALED = {"enabled": True}
BAD: list[tuple[Object, str]] = [
    ({"worker": "spam"}, "/worker"),
    ({"replicaCount": 3}, "'replicaCount' not allowed"),
    ({"replicas": -1}, "/replicas"),
    ({"image": {"digest": "latest"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"broker": {"existingSecret": ""}}, "/broker/existingSecret"),
    ({"broker": {"password": "secret"}}, "'password' not allowed"),
    ({"database": {"uri": "mongodb://db"}}, "'uri' not allowed"),
    ({"settings": {"FEEDMILL_PREFETSCH": 5}}, "'FEEDMILL_PREFETSCH' not allowed"),
    ({"settings": {"FEEDMILL_PROBE_PORT": 9}}, "'FEEDMILL_PROBE_PORT' not allowed"),
    ({"settings": {"FEEDMILL_PREFETCH": [5]}}, "/settings/FEEDMILL_PREFETCH"),
    ({"model": {"settings": {"FEEDMILL_MODEL": "pkg://x"}}}, "'FEEDMILL_MODEL' not allowed"),
    ({"model": {"source": "s3"}}, "/model/source"),
    ({"model": {"uri": "s3://bucket"}}, "/model/uri"),
    ({"model": {"uri": "hf://a/b@c"}}, "set model.source=hub"),
    ({"model": {"source": "hub"}}, "expected hf://owner/name@revision"),
    ({"model": {"source": "hub", "uri": "hf://owner/name"}}, "expected hf://owner/name@revision"),
    ({"model": {"source": "pvc"}}, "model.pvc.claimName"),
    ({"model": {"source": "pvc", "pvc": {"claimName": "c"}, "uri": "pkg://x"}}, "name the folder in model.path"),
    ({"model": {"source": "pvc", "pvc": {"claimName": "c"}, "path": "/abs"}}, "/model/path"),
    ({"model": {"source": "ociImage"}}, "model.ociImage.reference"),
    ({"worker": "hint", "model": {"uri": "pkg://x"}}, "hint has no model"),
    ({"snapshot": {"volume": "emptyDir"}}, "only hint has an index"),
    ({"worker": "hint", "snapshot": {"volume": "disk"}}, "/snapshot/volume"),
    ({"worker": "hint", "snapshot": {"volume": "pvc"}}, "snapshot.claimName: expected the claim"),
    ({"worker": "hint", "snapshot": {"claimName": "c"}}, "expected nothing with snapshot.volume=none"),
    ({"settings": {"FEEDMILL_INDEX_SNAPSHOT_DIR": "/x"}}, "'FEEDMILL_INDEX_SNAPSHOT_DIR' not allowed"),
    ({"drainTimeoutSeconds": 0}, "/drainTimeoutSeconds"),
    ({"autoscaling": {**SCALED, "protocol": "grpc"}}, "/autoscaling/protocol"),
    ({"autoscaling": {**SCALED, "minReplicas": 5, "maxReplicas": 2}}, "autoscaling.minReplicas: expected at most"),
    ({"autoscaling": SCALED, "replicas": 2}, "replicas: expected nothing with autoscaling.enabled"),
    ({"metrics": {"podMonitor": {"enabled": True}}}, "Install the Prometheus operator"),
    ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "/podDisruptionBudget/maxUnavailable"),
]


def tells(error: HelmError, message: str) -> bool:
    """Whether helm's text has the message; Helm 3 and 4 word what a schema refuses in their own ways."""
    text = str(error)
    if message.startswith("/"):
        return message.strip("/").replace("/", ".") in text.replace("/", ".")
    name, _, rest = message.rpartition("' ")
    return message in text or (rest == "not allowed" and f"property {name.strip(chr(39))} is not allowed" in text)


@pytest.mark.parametrize(("values", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_values_are_refused(values, message):
    with pytest.raises(HelmError) as caught:
        render("worker", values, apis=(KEDA,))
    assert tells(caught.value, message), str(caught.value)


def test_without_keda_the_message_tells_the_way_out():
    with pytest.raises(HelmError) as caught:
        render("feedmill", {"toxic": {"autoscaling": SCALED}})
    message = str(caught.value)
    assert all(part in message for part in ("toxic", "no KEDA", "autoscaling.enabled=false", "--api-versions"))


def test_an_image_volume_is_refused_where_kubernetes_has_none():
    model = {"source": "ociImage", "ociImage": {"reference": "x/y:1"}}
    with pytest.raises(HelmError, match=r"needs Kubernetes 1\.33 or newer \(this is v1\.32\.0\)"):
        render("worker", {"model": model}, version="1.32.0")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"toxick": {"enabled": False}}, "'toxick' not allowed"),
        ({"toxic": {"replicaCount": 2}}, "'replicaCount' not allowed"),
        ({"toxic": {"worker": "hint"}}, "/toxic/worker"),
        ({"global": {"broker": {"secret": "x"}}}, "'secret' not allowed"),
        ({"demo": {"enabled": True}, "global": {"broker": {"host": "rabbit"}}}, "global.broker.host"),
    ],
)
def test_bad_values_of_the_umbrella_are_refused(values, message):
    with pytest.raises(HelmError) as caught:
        render("feedmill", values)
    assert tells(caught.value, message), str(caught.value)
