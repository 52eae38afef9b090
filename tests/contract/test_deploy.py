"""The chart renders, passes Kubernetes' own schemas, keeps the restricted profile, and fits the server it deploys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from contract import kube_tools
from polarvec_server.cli import app
from polarvec_server.config import load_settings
from typer.testing import CliRunner

ENTRYPOINT = kube_tools.ROOT / "deploy" / "docker" / "polarvec-triton"
VARIANTS = {
    "default": ("values.yaml",),
    "everything": ("values.yaml", "everything.yaml"),
    "gpu": ("values.yaml", "gpu.yaml"),
}
# Not Kubernetes' own, so its schemas do not know it.
FOREIGN_KINDS = {"ServiceMonitor"}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def helm() -> Path:
    if not kube_tools.helm_runs_here():
        pytest.skip("the helm binary that the chart is tested with runs on Linux on x86-64 only")
    return kube_tools.find_helm()


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def objects(request: pytest.FixtureRequest, helm: Path) -> Objects:
    return kube_tools.render(helm, *request.param)


@pytest.fixture
def pod(objects: Objects) -> dict[str, Any]:
    return kube_tools.pick(objects, "Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def containers(objects: Objects) -> dict[str, dict[str, Any]]:
    return kube_tools.containers(kube_tools.pick(objects, "Deployment"))


def environment(container: dict[str, Any]) -> dict[str, str]:
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), f"{container['name']} names a variable twice"
    return {entry["name"]: entry["value"] for entry in container["env"]}


def of_ours(container: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in environment(container).items() if name.startswith("POLARVEC_")}


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_lint_finds_nothing(helm: Path):
    for values in VARIANTS.values():
        files = [f"--values={kube_tools.CHART / 'ci' / name}" for name in values]
        done = kube_tools.run_helm(helm, "lint", "--strict", str(kube_tools.CHART), *files)
        assert done.returncode == 0, done.stdout + done.stderr


def test_objects_are_valid_for_kubernetes(objects: Objects):
    for found in objects:
        if found["kind"] not in FOREIGN_KINDS:
            kubernetes_validate.validate(found, "1.37", strict=True)


def test_the_validator_finds_a_typing_error(objects: Objects):
    broken = dict(kube_tools.pick(objects, "NetworkPolicy"))
    broken["spec"] = broken["spec"] | {"ingres": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("images.gateway.digest=latest", "digest"),
        ("images.triton.repository=", "repository"),
        ("models.claim=", "claim"),
        ("models.folders={../secrets}", "folders"),
        ("engine=auto", "engine"),
        ("precision=auto", "precision"),
        ("precision=int4", "precision"),
        ("precision=fp8", "precision"),
        ("engine=cuda", "gpus"),
        ("engine=cuda,triton.gpus=1,precision=int8", "precision"),
        ("triton.gpus=1", "gpus"),
        ("settings.GPUS=0", "GPUS"),
        ("settings.HOST=1.2.3.4", "HOST"),
        ("settings.TLS_CERT_FILE=x", "TLS_CERT_FILE"),
        ("apiKeys.secret=../keys", "secret"),
        ("tls.clientCertificates=true", "secret"),
        ("replica=3", "replica"),
    ],
)
def test_values_that_cannot_work_are_refused(helm: Path, setting: str, complaint: str):
    values = kube_tools.CHART / "ci" / "values.yaml"
    done = kube_tools.run_helm(
        helm, "template", "demo", str(kube_tools.CHART), f"--values={values}", f"--set={setting}"
    )
    assert done.returncode != 0
    assert complaint in done.stderr


def test_nothing_has_a_default_that_would_be_a_lie(helm: Path):
    done = kube_tools.run_helm(helm, "template", "demo", str(kube_tools.CHART))
    assert done.returncode != 0
    for path in ("/images/gateway/digest", "/images/triton/digest", "/models/claim", "/models/folders"):
        assert path in done.stderr


def test_gpus_go_to_tritonserver_alone(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    gpu = of_ours(containers["triton"])["POLARVEC_ENGINE"] == "cuda"
    wanted = {name: container["resources"]["limits"].get("nvidia.com/gpu", 0) for name, container in containers.items()}
    assert wanted == {"prepare": 0, "triton": 2 if gpu else 0, "gateway": 0}
    # An extended resource cannot be overcommitted; a request, if there is one, must be the limit.
    assert "nvidia.com/gpu" not in containers["triton"]["resources"]["requests"]
    assert of_ours(containers["prepare"]).get("POLARVEC_GPUS", "") == ("0,1" if gpu else "")
    assert ("--elsewhere" in containers["prepare"]["command"]) == gpu
    assert pod.get("runtimeClassName") == ("nvidia" if gpu else None)


def test_the_cpu_engine_keeps_its_weights_where_tritonserver_may_write(containers: dict[str, dict[str, Any]]):
    place = of_ours(containers["prepare"])["POLARVEC_ENGINE_CACHE_DIR"]
    if of_ours(containers["prepare"])["POLARVEC_ENGINE"] == "cuda":
        assert place == "none"
    else:
        assert not mounts(containers["triton"])[place].get("readOnly")


def test_nothing_is_kept_where_no_place_is_given(helm: Path):
    objects = kube_tools.render(helm, "values.yaml", settings=("triton.engineCache=",))
    deployment = kube_tools.pick(objects, "Deployment")
    assert of_ours(kube_tools.containers(deployment)["prepare"])["POLARVEC_ENGINE_CACHE_DIR"] == "none"
    assert "engines" not in {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}


def test_images_are_named_by_digest(containers: dict[str, dict[str, Any]]):
    for container in containers.values():
        assert re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", container["image"])


def test_the_pod_keeps_the_restricted_profile(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 1000, 1000)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostIPC", "hostNetwork", "hostPID"} & set(pod)
    assert all(set(volume) & {"emptyDir", "persistentVolumeClaim", "secret"} for volume in pod["volumes"])
    for container in containers.values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_service_links_are_off(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """With them a Service named polarvec would stop the server: it refuses settings that it does not know."""
    assert pod["enableServiceLinks"] is False


def test_memory_is_bounded_and_holds_the_memory_volumes(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    sizes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert all("sizeLimit" in volume for volume in sizes.values())
    for container in containers.values():
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" in resources["requests"]
        in_memory = sum(
            kube_tools.in_mebibytes(sizes[mount["name"]]["sizeLimit"])
            for mount in container["volumeMounts"]
            if sizes.get(mount["name"], {}).get("medium") == "Memory"
        )
        assert in_memory < kube_tools.in_mebibytes(resources["limits"]["memory"]) / 2


def test_mounts_are_volumes_and_what_is_read_is_read_only(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in containers.values():
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert mounts(container)["/models"]["readOnly"] is True
    writers = [name for name, container in containers.items() if not mounts(container)["/prepared"].get("readOnly")]
    assert writers == ["prepare"]
    # A read-only root leaves only these; tritonserver aborts without a /tmp of its own.
    assert {"/tmp", "/dev/shm", "/run/triton"} <= set(mounts(containers["triton"]))
    assert {"/tmp", "/run/triton"} <= set(mounts(containers["gateway"]))
    used = {mount["name"] for container in containers.values() for mount in container["volumeMounts"]}
    assert used == volumes


def test_containers_start_and_end_in_order(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    assert list(containers) == ["prepare", "triton", "gateway"]
    assert "restartPolicy" not in containers["prepare"]
    # A native sidecar: ready before the gateway starts, ended after it.
    assert containers["triton"]["restartPolicy"] == "Always"
    assert "startupProbe" in containers["triton"]


def test_the_grace_period_covers_every_step_of_stopping(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    gateway, triton = environment(containers["gateway"]), environment(containers["triton"])
    steps = int(gateway["POLARVEC_DRAIN_DELAY_S"]) + int(gateway["POLARVEC_DRAIN_S"])
    steps += int(triton["TRITON_EXIT_TIMEOUT_S"])
    assert steps + 5 <= pod["terminationGracePeriodSeconds"] <= steps + 30


def test_readiness_turns_before_the_listener_closes(containers: dict[str, dict[str, Any]]):
    probe = containers["gateway"]["readinessProbe"]
    delay = int(environment(containers["gateway"])["POLARVEC_DRAIN_DELAY_S"])
    assert probe["periodSeconds"] + probe["timeoutSeconds"] <= delay


def test_probes_end_before_the_kubelet_ends_them(containers: dict[str, dict[str, Any]]):
    for kind in ("startupProbe", "livenessProbe"):
        probe = containers["triton"][kind]
        limit = re.search(r"--timeout-s=(\d+)", " ".join(probe["exec"]["command"]))
        assert limit
        assert int(limit[1]) + 5 <= probe["timeoutSeconds"]
    for name in ("triton", "gateway"):
        assert {"startupProbe", "livenessProbe"} <= set(containers[name])
    startup = containers["triton"]["startupProbe"]
    allowed = startup["periodSeconds"] * startup["failureThreshold"]
    assert allowed >= int(environment(containers["triton"])["TRITON_LOAD_TIMEOUT_S"])


def test_the_gateway_is_probed_where_it_listens(containers: dict[str, dict[str, Any]]):
    gateway = containers["gateway"]
    names, ports = of_ours(gateway), {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports == {name: int(names[f"POLARVEC_{name.upper()}_PORT"]) for name in ("grpc", "http", "openai")}
    if "POLARVEC_TLS_CERT_FILE" in names:
        # The kubelet's gRPC probe speaks no TLS; the operators' port is plain.
        assert gateway["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    else:
        assert gateway["readinessProbe"]["grpc"]["port"] == ports["grpc"]
    for kind in ("startupProbe", "livenessProbe"):
        assert gateway[kind]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert names["POLARVEC_HOST"] == "0.0.0.0"


def test_keys_and_certificates_reach_the_gateway_alone(pod: dict[str, Any], containers: dict[str, dict[str, Any]]):
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    files = {name: value for name, value in of_ours(containers["gateway"]).items() if name.endswith("_FILE")}
    places = {mount["mountPath"]: mount["name"] for mount in containers["gateway"]["volumeMounts"]}
    # Every secret is mounted for a setting, and every setting lies in a mounted secret.
    assert {places[str(Path(file).parent)] for file in files.values()} == set(secrets)
    assert all(secret["defaultMode"] == 0o440 for secret in secrets.values())
    for name in ("prepare", "triton"):
        assert not {mount["name"] for mount in containers[name]["volumeMounts"]} & set(secrets)
        assert not any(setting.endswith("_FILE") for setting in of_ours(containers[name]))


def test_every_container_has_settings_that_the_server_accepts(
    containers: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    for container in containers.values():
        for name, value in of_ours(container).items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        assert all(name.startswith("/models/") for name in settings.model_names)
        for name in of_ours(container):
            monkeypatch.delenv(name)


def test_containers_agree_on_models_cache_and_socket(containers: dict[str, dict[str, Any]]):
    for name in ("POLARVEC_MODEL", "POLARVEC_CACHE_DIR", "POLARVEC_TRITON_TARGET", "POLARVEC_PRECISION"):
        assert len({of_ours(container)[name] for container in containers.values()}) == 1
    target = of_ours(containers["gateway"])["POLARVEC_TRITON_TARGET"]
    assert target == f"unix:{mounts(containers['triton'])['/run/triton']['mountPath']}/grpc:0"
    # The golden vectors lie in the cache, and all three read them.
    assert of_ours(containers["prepare"])["POLARVEC_CACHE_DIR"].startswith("/prepared/")


def test_commands_exist(containers: dict[str, dict[str, Any]]):
    calls = [containers["prepare"]["command"], containers["gateway"]["command"]]
    calls += [containers["triton"][kind]["exec"]["command"] for kind in ("startupProbe", "livenessProbe")]
    for program, command, *arguments in calls:
        assert program == "polarvec-server"
        found = CliRunner().invoke(app, [command, "--help"])
        assert found.exit_code == 0, command
        plain = re.sub(r"\x1b\[[0-9;]*m", "", found.output)
        assert all(part.split("=")[0] in plain for part in arguments if part.startswith("--")), command
    assert containers["triton"]["command"] == [ENTRYPOINT.name]


def test_selectors_find_the_pod(objects: Objects):
    deployment = kube_tools.pick(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    selectors.append(kube_tools.pick(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    selectors.append(kube_tools.pick(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    assert len(selectors) == 7
    for selector in selectors:
        assert selector and selector.items() <= labels
        # A version in a selector would orphan the pods of the last release.
        assert "app.kubernetes.io/version" not in selector


def test_ports_are_named_alike_everywhere(objects: Objects, containers: dict[str, dict[str, Any]]):
    ports = {port["name"] for container in containers.values() for port in container.get("ports", [])}
    services = [one for one in objects if one["kind"] == "Service"]
    assert {port["targetPort"] for one in services for port in one["spec"]["ports"]} <= ports
    policy = kube_tools.pick(objects, "NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= ports
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    headless = next(one for one in services if one["spec"].get("clusterIP") == "None")
    assert {port["port"] for port in headless["spec"]["ports"] if port["name"] == "grpc"} == {50051}


def test_each_pod_is_scraped_once(objects: Objects):
    monitors = [one for one in objects if one["kind"] == "ServiceMonitor"]
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [one for one in objects if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()]
        assert len(services) == 1
        ports = {port["name"] for port in services[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
        triton = kube_tools.containers(kube_tools.pick(objects, "Deployment"))["triton"]
        assert environment(triton)["TRITON_METRICS_ADDRESS"] == "0.0.0.0"
    if not monitors:
        triton = kube_tools.containers(kube_tools.pick(objects, "Deployment"))["triton"]
        assert environment(triton)["TRITON_METRICS_ADDRESS"] == "127.0.0.1"


def test_a_disruption_leaves_a_pod(objects: Objects):
    budget = kube_tools.pick(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < kube_tools.pick(objects, "Deployment")["spec"]["replicas"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_names_stay_valid_for_a_long_release_name(helm: Path):
    values = kube_tools.CHART / "ci" / "values.yaml"
    done = kube_tools.run_helm(helm, "template", "a" * 53, str(kube_tools.CHART), f"--values={values}")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"(?m)^  name: (\S+)$", done.stdout)
    assert names
    assert all(len(name) <= 63 for name in names)
