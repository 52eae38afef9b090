"""What a load consists of and how it is offered: workloads, arrivals, shapes, checks, measurements."""
