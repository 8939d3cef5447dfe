//! What every controller shares: context, clock, telemetry, leader election, hint-carrying errors.
