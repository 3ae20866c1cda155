"""The guide's own test; its imports are all that was adapted."""

from tests.guide.system import (
    create_huge_architecture,
    modification_history,
    rsi_system,
    safety_bounds,
    search_engine,
)


def test_safety_bounds():
    """Ensure safety mechanisms work."""
    # Test 1: Architecture exceeding bounds should be rejected
    unsafe_arch = create_huge_architecture(params=100e9)  # 100B params
    assert not search_engine._validate_safety(unsafe_arch, safety_bounds)
    # Test 2: Runaway detection should trigger
    # Simulate exponentially improving performance
    for i in range(5):
        fake_improvement = 0.1 * (1.6**i)  # Exponential
        modification_history.append({"performance_delta": fake_improvement})
    assert rsi_system._detect_runaway() == True  # noqa: E712
    # Test 3: Emergency shutdown should freeze system
    rsi_system._emergency_shutdown()
    assert rsi_system.max_generations == 0
