"""The demo's second command: a loop that prints lines and reports progress to the job that it runs in."""

import os
import sys
import time

from jobwire import Jobs

STEPS = 40


def main() -> None:
    jobs, job_id, token = Jobs.from_env(), os.environ["JOBWIRE_JOB"], os.environ["JOBWIRE_LEASE_TOKEN"]
    for step in range(1, STEPS + 1):
        sys.stdout.write(f"step {step} of {STEPS}: weighed {step * 37} grains\n")
        if step % 10 == 0:
            sys.stderr.write(f"step {step}: the scales want oil\n")
        jobs.progress(job_id, 100 * step / STEPS, f"step {step} of {STEPS}", lease_token=token)
        time.sleep(0.05)
    sys.stdout.write("all weighed: ½ ton, ✓")


if __name__ == "__main__":
    main()
