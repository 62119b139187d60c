; A table-driven loop over compiled kernels: one native call runs a whole network.

; entry, argument addresses, sizes
%tw.step = type { ptr, ptr, ptr }

; Run steps [0, count) in order on one workspace and pool.
define void @tw_sequence_run(ptr %steps, i64 %count, ptr %workspace, ptr %pool) {
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %done
step:
  %entry.p = getelementptr %tw.step, ptr %steps, i64 %i
  %entry = load ptr, ptr %entry.p
  %args.p = getelementptr %tw.step, ptr %steps, i64 %i, i32 1
  %args = load ptr, ptr %args.p
  %sizes.p = getelementptr %tw.step, ptr %steps, i64 %i, i32 2
  %sizes = load ptr, ptr %sizes.p
  call void %entry(ptr %args, ptr %sizes, ptr %workspace, ptr %pool)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}

declare i32 @clock_gettime(i32, ptr)

; Nanoseconds of the monotonic clock.
define internal i64 @tw.now() {
  %time = alloca { i64, i64 }
  call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %nanos.p = getelementptr { i64, i64 }, ptr %time, i64 0, i32 1
  %nanos = load i64, ptr %nanos.p
  %scaled = mul i64 %seconds, 1000000000
  %now = add i64 %scaled, %nanos
  ret i64 %now
}

; The same, adding each step's nanoseconds to spent[i].
define void @tw_sequence_profile(ptr %steps, i64 %count, ptr %workspace, ptr %pool, ptr %spent) {
  %start = call i64 @tw.now()
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %step ]
  %before = phi i64 [ %start, %0 ], [ %after, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %done
step:
  %one = getelementptr %tw.step, ptr %steps, i64 %i
  call void @tw_sequence_run(ptr %one, i64 1, ptr %workspace, ptr %pool)
  %after = call i64 @tw.now()
  %taken = sub i64 %after, %before
  %slot = getelementptr i64, ptr %spent, i64 %i
  %sum = load i64, ptr %slot
  %total = add i64 %sum, %taken
  store i64 %total, ptr %slot
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}
