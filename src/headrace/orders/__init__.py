"""The order flow: intake accepts, the engine executes, and pure rooms decide."""
