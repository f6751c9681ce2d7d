! draw DENSITY.safetensors ROWS SEED: rows drawn from a density, one a line, each with its log density in nats.
!
!     gfortran draw.f90 $(python -m headrace.config --libs) -o draw
!
! Arrays of Fortran are read and written in place: one of shape (features, rows) has a row of data in each column.

module headrace
  use, intrinsic :: iso_c_binding
  implicit none

  integer(c_int), parameter :: abi = 1  ! HEADRACE_ABI of headrace.h
  integer(c_int), parameter :: ok = 0, float64 = 2
  integer(c_int64_t), parameter :: from_start = -1

  type, bind(c) :: array_of_rows  ! headrace_input and headrace_output
    type(c_ptr) :: values
    integer(c_int64_t) :: rows, columns, row_stride, column_stride
    integer(c_int) :: dtype
  end type

  interface
    function headrace_abi() bind(c) result(version)
      import
      integer(c_int) :: version
    end function
    function headrace_open(path, flow) bind(c) result(code)
      import
      character(kind=c_char), intent(in) :: path(*)
      type(c_ptr), intent(out) :: flow
      integer(c_int) :: code
    end function
    subroutine headrace_close(flow) bind(c)
      import
      type(c_ptr), value :: flow
    end subroutine
    function headrace_features(flow) bind(c) result(features)
      import
      type(c_ptr), value :: flow
      integer(c_int64_t) :: features
    end function
    function headrace_sample(flow, seed, first_row, context, x, log_prob) bind(c) result(code)
      import
      type(c_ptr), value :: flow, context
      integer(c_int64_t), value :: seed, first_row
      type(array_of_rows), intent(in) :: x, log_prob
      integer(c_int) :: code
    end function
    function headrace_message() bind(c) result(text)
      import
      type(c_ptr) :: text
    end function
    function strlen(text) bind(c) result(length)
      import
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function
  end interface

contains

  function rows_of(x) result(array)
    real(c_double), target, contiguous, intent(in) :: x(:, :)
    type(array_of_rows) :: array
    integer(c_int64_t) :: columns, rows
    columns = size(x, 1, c_int64_t)
    rows = size(x, 2, c_int64_t)
    array = array_of_rows(c_loc(x), rows, columns, columns, 1_c_int64_t, float64)
  end function

  subroutine check(code)
    integer(c_int), intent(in) :: code
    type(c_ptr) :: message
    character(kind=c_char), pointer :: letters(:)
    character(len=:), allocatable :: text
    integer :: i
    if (code == ok) return
    message = headrace_message()
    call c_f_pointer(message, letters, [strlen(message)])
    allocate (character(len=size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
    call fail(text)
  end subroutine

  subroutine fail(reason)
    use, intrinsic :: iso_fortran_env, only: error_unit
    character(len=*), intent(in) :: reason
    write (error_unit, '(a)') 'draw: error: '//reason
    stop 1, quiet=.true.
  end subroutine

end module

program draw
  use headrace
  implicit none
  type(c_ptr) :: flow
  real(c_double), allocatable, target :: x(:, :), log_prob(:, :)
  integer(c_int64_t) :: rows, seed, r
  character(len=:), allocatable :: given

  if (command_argument_count() /= 3) call fail('expected DENSITY.safetensors ROWS SEED')
  if (headrace_abi() /= abi) call fail('libheadrace is of another version than this program')
  given = argument(2)//' '//argument(3)
  read (given, *) rows, seed
  call check(headrace_open(argument(1)//c_null_char, flow))
  allocate (x(headrace_features(flow), rows), log_prob(1, rows))
  call check(headrace_sample(flow, seed, from_start, c_null_ptr, rows_of(x), rows_of(log_prob)))
  do r = 1, rows
    write (*, '(*(es24.16e3, :, ","))') x(:, r), log_prob(1, r)
  end do
  call headrace_close(flow)

contains

  function argument(i) result(text)
    integer, intent(in) :: i
    character(len=:), allocatable :: text
    integer :: length
    call get_command_argument(i, length=length)
    allocate (character(len=length) :: text)
    call get_command_argument(i, text)
  end function

end program
