//! Pure rules of training jobs: job to pods, services, environment and status.
