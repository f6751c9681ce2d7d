/* Functions of libheadrace for .Call of R: draw.R has an R function for each.
 *
 *     cc -shared -fPIC -I"$(Rscript -e 'cat(R.home("include"))')" headrace_r.c \
 *         $(python -m headrace.config --cflags --libs) -o headrace_r.so
 *
 * Matrices of R, which are stored column by column, are read and written in place.
 */
#define R_NO_REMAP
#include <Rinternals.h>
#include <headrace.h>

static void check(int code) {
    if (code != HEADRACE_OK) Rf_error("%s", headrace_message());
}

static headrace_flow* flow_of(SEXP handle) {
    headrace_flow* const flow = TYPEOF(handle) == EXTPTRSXP ? R_ExternalPtrAddr(handle) : NULL;
    if (!flow) Rf_error("flow: expected what headrace_open returns");
    return flow;
}

/* The values of a matrix; R's address of an empty matrix is not aligned. */
static double* values_of(SEXP matrix) {
    static double none;
    return XLENGTH(matrix) ? REAL(matrix) : &none;
}

static headrace_input rows_of(SEXP matrix, const char* name) {
    if (!Rf_isMatrix(matrix) || TYPEOF(matrix) != REALSXP) Rf_error("%s: expected a matrix of doubles", name);
    const int64_t rows = Rf_nrows(matrix), columns = Rf_ncols(matrix);
    const headrace_input view = {values_of(matrix), rows, columns, 1, rows, HEADRACE_FLOAT64};
    return view;
}

static headrace_output into(SEXP matrix, int64_t rows, int64_t columns) {
    const headrace_output view = {values_of(matrix), rows, columns, 1, rows, HEADRACE_FLOAT64};
    return view;
}

static void close_flow(SEXP handle) {
    headrace_close(R_ExternalPtrAddr(handle));
    R_ClearExternalPtr(handle);
}

/* An open flow, which R's garbage collector closes. */
SEXP headrace_r_open(SEXP path) {
    if (headrace_abi() != HEADRACE_ABI) Rf_error("headrace.h and libheadrace are of different versions");
    if (TYPEOF(path) != STRSXP || Rf_length(path) != 1) Rf_error("path: expected one string");
    headrace_flow* flow = NULL;
    check(headrace_open(R_ExpandFileName(Rf_translateChar(STRING_ELT(path, 0))), &flow));
    SEXP handle = PROTECT(R_MakeExternalPtr(flow, R_NilValue, R_NilValue));
    R_RegisterCFinalizerEx(handle, close_flow, TRUE);
    UNPROTECT(1);
    return handle;
}

/* A list of x, a matrix of n rows, and their log densities. seed: a double, because R's integers have 32 bits. */
SEXP headrace_r_sample(SEXP handle, SEXP n, SEXP seed) {
    const headrace_flow* const flow = flow_of(handle);
    const int rows = Rf_asInteger(n);
    const double from = Rf_asReal(seed);
    if (rows == NA_INTEGER || rows < 0) Rf_error("n: expected a count of rows");
    if (!(from >= 0 && from < 9007199254740992.0)) Rf_error("seed: expected a whole number from 0 to 2^53");
    const int features = (int)headrace_features(flow);
    SEXP x = PROTECT(Rf_allocMatrix(REALSXP, rows, features)), log_prob = PROTECT(Rf_allocVector(REALSXP, rows));
    const headrace_output to = into(x, rows, features), density = into(log_prob, rows, 1);
    check(headrace_sample(flow, (uint64_t)from, HEADRACE_FROM_START, NULL, &to, &density));
    const char* names[] = {"x", "log_prob", ""};
    SEXP both = PROTECT(Rf_mkNamed(VECSXP, names));
    SET_VECTOR_ELT(both, 0, x);
    SET_VECTOR_ELT(both, 1, log_prob);
    UNPROTECT(3);
    return both;
}

/* The log density of each row of x; context: a matrix, or NULL. */
SEXP headrace_r_log_prob(SEXP handle, SEXP x, SEXP context) {
    const headrace_flow* const flow = flow_of(handle);
    const headrace_input rows = rows_of(x, "x");
    headrace_input given;
    if (context != R_NilValue) given = rows_of(context, "context");
    SEXP log_prob = PROTECT(Rf_allocVector(REALSXP, (R_xlen_t)rows.rows));
    const headrace_output density = into(log_prob, rows.rows, 1);
    check(headrace_log_prob(flow, &rows, context == R_NilValue ? NULL : &given, &density));
    UNPROTECT(1);
    return log_prob;
}
