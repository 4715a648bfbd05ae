"""What the kernel's files and NVIDIA's library say, from made-up files and a made-up library."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.machine import memory, nvidia, sensors, usage


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Writes files under a made-up /sys and /proc: ``machine("sys/a/b", "text")``."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    monkeypatch.setattr(sensors, "SYSTEM", tmp_path / "sys")
    monkeypatch.setattr(sensors, "PROCESS", tmp_path / "proc")
    sensors._throttle_files.cache_clear()
    yield write
    sensors._throttle_files.cache_clear()


CPU = "sys/devices/system/cpu"


def test_a_machine_that_tells_nothing(machine):
    assert sensors.physical_cores() is None
    assert sensors.governor() is None
    assert sensors.max_clock_mhz() is None
    assert sensors.clock_mhz() is None
    assert sensors.temperature_celsius() is None
    assert sensors.pressure("cpu") is None
    assert sensors.cpu_quota() is None
    assert sensors.memory_limit_bytes() is None
    assert sensors.throttles() == {}
    assert sensors.Rapl().joules() is None


def test_processors(machine):
    for n in range(4):
        machine(f"{CPU}/cpu{n}/topology/thread_siblings_list", f"{n % 2},{n % 2 + 2}")
        machine(f"{CPU}/cpu{n}/cpufreq/scaling_governor", "powersave" if n else "performance")
        machine(f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq", 3_000_000 + n)
        machine(f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq", 1_000_000 * (n + 1))
    assert sensors.physical_cores() == 2
    assert sensors.governor() == "performance, powersave"
    assert sensors.max_clock_mhz() == 3000.003
    assert sensors.clock_mhz() == 2500


def test_clocks_from_cpuinfo_where_there_is_no_cpufreq(machine):
    machine("proc/cpuinfo", "model name : x\ncpu MHz\t\t: 2000.5\n\ncpu MHz\t\t: 3000.5")
    assert sensors.clock_mhz() == 2500.5


def test_the_hottest_sensor_of_the_processors(machine):
    machine("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp")
    machine("sys/class/thermal/thermal_zone0/temp", 61_000)
    machine("sys/class/thermal/thermal_zone1/type", "iwlwifi_1")
    machine("sys/class/thermal/thermal_zone1/temp", 99_000)
    machine("sys/class/hwmon/hwmon0/name", "coretemp")
    machine("sys/class/hwmon/hwmon0/temp2_input", 72_500)
    assert sensors.temperature_celsius() == 72.5


def test_pressure(machine):
    machine("proc/pressure/cpu", "some avg10=12.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 total=0")
    assert sensors.pressure("cpu") == 0.125


# --- limits ---------------------------------------------------------------------------------------------------


def test_the_tightest_quota_of_version_two(machine):
    machine("proc/self/cgroup", "0::/outer/inner")
    machine("sys/fs/cgroup/outer/inner/cpu.max", "max 100000")
    machine("sys/fs/cgroup/outer/cpu.max", "150000 100000")
    machine("sys/fs/cgroup/outer/inner/memory.max", "max")
    machine("sys/fs/cgroup/outer/memory.max", "2000000000")
    assert sensors.cpu_quota() == 1.5
    assert sensors.memory_limit_bytes() == 2_000_000_000


def test_version_one_and_its_way_to_say_no_limit(machine):
    machine("proc/self/cgroup", "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n0::/")
    machine("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1")
    machine("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000")
    machine("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", 9223372036854771712)
    assert sensors.cpu_quota() == sensors.UNLIMITED
    assert sensors.memory_limit_bytes() == sensors.UNLIMITED
    machine("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "50000")
    assert sensors.cpu_quota() == 0.5


def test_throttling_is_counted_once_a_package_and_over_all_groups(machine):
    for n in range(4):
        machine(f"{CPU}/cpu{n}/topology/physical_package_id", n // 2)
        machine(f"{CPU}/cpu{n}/thermal_throttle/package_throttle_count", 7)
    machine("proc/self/cgroup", "0::/a/b")
    machine("sys/fs/cgroup/a/b/cpu.stat", "usage_usec 5\nnr_throttled 3")
    machine("sys/fs/cgroup/a/cpu.stat", "nr_throttled 2")
    assert list(sensors.throttles().values()) == [14, 5]


def test_a_container_leaves_traces(machine, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("container", raising=False)
    monkeypatch.setattr(sensors, "TRACES", {})
    assert sensors.container() == sensors.NONE_FOUND
    machine("proc/1/cgroup", "0::/system.slice/docker-abc.scope")
    assert sensors.container() == "docker"
    monkeypatch.setenv("container", "lxc-libvirt")
    assert sensors.container() == "lxc-libvirt"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert sensors.container() == "kubernetes"


# --- energy ---------------------------------------------------------------------------------------------------


def test_energy_adds_up_packages_and_goes_on_where_a_counter_begins_anew(machine):
    zone = "sys/class/powercap/intel-rapl:"
    for n, start in ((0, 1_000_000), (1, 5_000_000)):
        machine(f"{zone}{n}/name", f"package-{n}")
        machine(f"{zone}{n}/energy_uj", start)
        machine(f"{zone}{n}/max_energy_range_uj", 6_000_000)
    machine(f"{zone}2/name", "psys")  # the whole board, packages included
    machine(f"{zone}2/energy_uj", 9)
    rapl = sensors.Rapl()
    assert rapl.joules() == 0.0
    machine(f"{zone}0/energy_uj", 2_500_000)
    machine(f"{zone}1/energy_uj", 1_000_000)  # wrapped: 1 to the end, 1 from the start
    assert rapl.joules() == 1.5 + 2.0
    assert rapl.joules() == 3.5


# --- NVIDIA ---------------------------------------------------------------------------------------------------


class Library:
    """As pynvml: functions that answer or raise."""

    bits, processes = 0x04, ["this process"]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == "GPU-1234"
        return "handle"

    def nvmlSystemGetDriverVersion(self):
        return "550.54"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 700_000

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        raise RuntimeError("not supported")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 12_345

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self.bits

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self.processes

    def nvmlDeviceGetUtilizationRates(self, handle):
        return type("Rates", (), {"gpu": 50})


def test_a_gpu():
    library = Library()
    gpu = nvidia.Gpu(library, "1234")
    assert gpu.driver() == "550.54"
    assert gpu.power_limit_watts() == 700.0
    assert (gpu.clock_mhz(), gpu.memory_clock_mhz()) == (1980, 2619)
    assert gpu.max_clock_mhz() is None  # it raises
    assert gpu.temperature_celsius() is None  # it lacks the function
    assert gpu.energy_joules() == 12.345
    assert gpu.utilisation() == 0.5
    assert gpu.reasons() == ("power limit",)
    assert gpu.reasons(nvidia.SLOWING) == ()
    assert gpu.foreign() == 0
    library.bits, library.processes = 0x40 | 0x01, ["this process", "another"]
    assert gpu.reasons() == ("idle", "the hardware slowed down for the heat")
    assert gpu.foreign() == 1
    library.processes = []
    assert gpu.foreign() is None  # this process is not seen either, so nobody can say


def test_an_old_driver_has_another_name_for_the_reasons():
    class Old(Library):
        nvmlDeviceGetCurrentClocksEventReasons = property()

        def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
            return 0x20

    assert nvidia.Gpu(Old(), "GPU-1234").reasons() == ("the driver slowed down for the heat",)


def test_no_library_no_answers():
    gpu = nvidia.Gpu(None, "")
    answers = [
        gpu.driver(), gpu.power_limit_watts(), gpu.clock_mhz(), gpu.memory_clock_mhz(), gpu.max_clock_mhz(),
        gpu.max_memory_clock_mhz(), gpu.temperature_celsius(), gpu.power_watts(), gpu.energy_joules(),
        gpu.utilisation(), gpu.reasons(), gpu.foreign(),
    ]  # fmt: skip
    assert answers == [None] * 12


def test_what_the_witness_reads_of_a_gpu():
    library = Library()
    library.bits, library.processes = 0x08, ["this process", "another"]
    reading = sensors.gpu_reader(nvidia.Gpu(library, "1234"))()
    assert reading.held_back == ("the hardware slowed down",)
    assert (reading.clock_mhz, reading.foreign, reading.energy_joules) == (1980, 1, 12.345)
    assert reading.seconds > 0


def test_what_the_witness_reads_of_a_cpu():
    reading = sensors.reader("cpu")()
    assert (reading.held_back, reading.clock_mhz, reading.foreign) == ((), None, None)


# --- texts ----------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 300)))
def test_ranges_say_exactly_these_numbers(numbers):
    text = sensors.ranges(numbers)
    found = set()
    for part in text.split(",") if text else ():
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    assert found == numbers


def test_fields_of_the_kernels_files(machine):
    file = machine("proc/x", "Mem: 5 kB\nMemFree:   6 kB\nctxt 7")
    assert sensors.field_of(file, "Mem") == "5 kB"
    assert sensors.field_of(file, "MemFree") == "6 kB"
    assert sensors.field_of(file, "ctxt") == "7"
    assert sensors.field_of(file, "none") is None
    assert sensors.read_number(file) is None


# --- memory ---------------------------------------------------------------------------------------------------

GB = 10**9


def test_what_a_container_has_read_of_files_is_free(machine):
    """After a data set was unpacked, nearly all of a container's memory is that, and photographs were refused."""
    machine("proc/meminfo", "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB")
    machine("proc/self/cgroup", "0::/")
    machine("sys/fs/cgroup/memory.max", 8 * GB)
    machine("sys/fs/cgroup/memory.current", 8 * GB - 1000)
    machine("sys/fs/cgroup/memory.stat", f"anon {GB}\nfile {6 * GB}\ninactive_file {4 * GB}\nactive_file {2 * GB}")
    assert memory.free_bytes() == 6 * GB + 1000


@pytest.mark.parametrize("version", ["one", "nested two"])
def test_the_groups_around_a_job_are_looked_at(machine, version):
    """The root alone was: a job of 16 GB on a node of 512 took a quarter of the node's memory."""
    machine("proc/meminfo", "MemAvailable: 500000000 kB")
    if version == "one":
        machine("proc/self/cgroup", "4:memory:/slurm/job_7\n0::/")
        machine("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", 16 * GB)
        machine("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", 5 * GB)
        machine("sys/fs/cgroup/memory/slurm/job_7/memory.stat", f"total_inactive_file {GB}\ntotal_active_file {GB}")
        machine("sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
        machine("sys/fs/cgroup/memory/memory.usage_in_bytes", 300 * GB)
        assert memory.free_bytes() == min(13 * GB, usage.memory_bytes())
    else:
        machine("proc/self/cgroup", "0::/system.slice/job_7/step")
        machine("sys/fs/cgroup/system.slice/job_7/step/memory.max", "max")
        machine("sys/fs/cgroup/system.slice/job_7/step/memory.current", GB)
        machine("sys/fs/cgroup/system.slice/job_7/memory.max", 16 * GB)
        machine("sys/fs/cgroup/system.slice/job_7/memory.current", 15 * GB)
        assert memory.free_bytes() == GB
