# Rscript draw.R DENSITY.safetensors ROWS SEED: rows drawn from a density, one a line, each with its log density in nats.
#
# The working directory has headrace_r.so, which the command on the first lines of headrace_r.c makes.

dyn.load("headrace_r.so")
headrace_open <- function(path) .Call("headrace_r_open", path)
headrace_sample <- function(flow, n, seed) .Call("headrace_r_sample", flow, n, seed)
headrace_log_prob <- function(flow, x, context = NULL) .Call("headrace_r_log_prob", flow, x, context)

draw <- function(path, n, seed) {
  flow <- headrace_open(path)
  drawn <- headrace_sample(flow, n, seed)
  # The density of given rows is that of the draws up to rounding, in float32 for most files.
  stopifnot(all.equal(headrace_log_prob(flow, drawn$x), drawn$log_prob, tolerance = 1e-4))
  table <- cbind(drawn$x, drawn$log_prob)
  digits <- matrix(sprintf("%.17g", table), nrow(table))
  write.table(digits, quote = FALSE, sep = ",", row.names = FALSE, col.names = FALSE)
}

given <- commandArgs(trailingOnly = TRUE)
tryCatch(
  {
    if (length(given) != 3) stop("expected DENSITY.safetensors ROWS SEED")
    draw(given[1], as.integer(given[2]), as.numeric(given[3]))
  },
  error = function(e) {
    message("draw: error: ", conditionMessage(e))
    quit(status = 1)
  }
)
