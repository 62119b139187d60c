; A thread pool for `parallel` loops: pthreads, atomics, and a condition variable to sleep on.
;
; One job is open at a time. A job is cut into `chunks` contiguous pieces; `claim` counts the
; pieces nobody has taken yet, and taking one is a compare-and-swap that decrements it. A claim
; that succeeds proves the job is open, and the job cannot close before that piece is finished,
; so its description (body, ctx, count, chunks) is read only after the claim. A worker that is
; late, asleep, descheduled or missing (fork) is never waited for: the caller takes its pieces.
;
; Sleeping loses no wake-up: the sleeper announces itself and then looks at `claim` again; the
; poster writes `claim` and then looks for sleepers. Both are sequentially consistent, so at least
; one of them sees the other.

%tw.pool = type {
  i32, i32, i32, i32, ptr, ptr, ptr, [24 x i8],   ;  0 threads   1 spin   2 key   3 caller   4 cpus   5 workers   6 allowed
  i64, [56 x i8],                                 ;  8 claim: pieces not yet taken
  i64, [56 x i8],                                 ; 10 unfinished: pieces not yet done
  ptr, ptr, i64, i64, [32 x i8],                  ; 12 body   13 ctx   14 count   15 chunks
  i32, i32, i32, i32, i32, [44 x i8],             ; 17 busy   18 started   19 stop   20 sleepers   21 waiting
  [128 x i8], [128 x i8], [128 x i8]              ; 23 mutex   24 work (condition)   25 done (condition)
}

; What a worker thread is started with: pool, its thread number (1..), its pthread_t.
%tw.worker = type { ptr, i64, i64 }

declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i64 @pthread_self()
declare i32 @sched_getcpu()
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare i32 @pthread_key_create(ptr, ptr)
declare i32 @pthread_key_delete(i32)
declare i32 @pthread_setspecific(i32, ptr)
declare ptr @pthread_getspecific(i32)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_destroy(ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_destroy(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)

; A pool of `threads` (the caller is number 0) that spins `spin` turns before it sleeps. `cpus`
; (i32[threads], kept by the caller) pins thread t to cpus[t], null pins nothing. `allowed` (a
; cpu_set_t, kept by the caller) makes workers keep clear of the processor that the caller runs on;
; null leaves them alone. Threads start with the first parallel loop. Null when memory is short.
define ptr @tw_pool_create(i32 %threads, i32 %spin, ptr %cpus, ptr %allowed) {
  %size = ptrtoint ptr getelementptr (%tw.pool, ptr null, i64 1) to i64
  %pool = call ptr @aligned_alloc(i64 64, i64 %size)
  %failed = icmp eq ptr %pool, null
  br i1 %failed, label %none, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr align 64 %pool, i8 0, i64 %size, i1 false)
  store i32 %threads, ptr %pool
  %spin.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 1
  store i32 %spin, ptr %spin.p
  %key.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 2
  %key.rc = call i32 @pthread_key_create(ptr %key.p, ptr null)
  %cpus.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 4
  store ptr %cpus, ptr %cpus.p
  %allowed.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 6
  store ptr %allowed, ptr %allowed.p
  %n = zext i32 %threads to i64
  %item = ptrtoint ptr getelementptr (%tw.worker, ptr null, i64 1) to i64
  %raw = mul i64 %n, %item
  %raw.up = add i64 %raw, 63
  %bytes = and i64 %raw.up, -64
  %workers = call ptr @aligned_alloc(i64 64, i64 %bytes)
  %workers.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 5
  store ptr %workers, ptr %workers.p
  %no.workers = icmp eq ptr %workers, null
  %no.key = icmp ne i32 %key.rc, 0
  %bad = or i1 %no.workers, %no.key
  br i1 %bad, label %undo, label %good
good:
  call void @tw_pool_reset(ptr %pool)
  ret ptr %pool
undo:
  call void @free(ptr %workers)
  call void @free(ptr %pool)
  ret ptr null
none:
  ret ptr null
}

; Forget all threads and locks: what a child process does after fork, where only the calling
; thread exists. The pool stays usable at the same address and restarts its threads when needed.
define void @tw_pool_reset(ptr %pool) {
  %claim = getelementptr %tw.pool, ptr %pool, i64 0, i32 8
  store atomic i64 0, ptr %claim seq_cst, align 8
  %unfinished = getelementptr %tw.pool, ptr %pool, i64 0, i32 10
  store atomic i64 0, ptr %unfinished seq_cst, align 8
  %flags = getelementptr %tw.pool, ptr %pool, i64 0, i32 17
  call void @llvm.memset.p0.i64(ptr align 64 %flags, i8 0, i64 20, i1 false)
  %caller = getelementptr %tw.pool, ptr %pool, i64 0, i32 3
  store i32 0, ptr %caller
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %work = getelementptr %tw.pool, ptr %pool, i64 0, i32 24
  %done = getelementptr %tw.pool, ptr %pool, i64 0, i32 25
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  call i32 @pthread_cond_init(ptr %work, ptr null)
  call i32 @pthread_cond_init(ptr %done, ptr null)
  ret void
}

; Somebody else has moved threads: the next loop sends workers clear of its caller whatever was done before.
define void @tw_pool_moved(ptr %pool) {
  %caller = getelementptr %tw.pool, ptr %pool, i64 0, i32 3
  store i32 0, ptr %caller
  ret void
}

; Stop and join the threads and free the pool. No loop may be running on it.
define void @tw_pool_destroy(ptr %pool) {
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %work = getelementptr %tw.pool, ptr %pool, i64 0, i32 24
  %done = getelementptr %tw.pool, ptr %pool, i64 0, i32 25
  %stop = getelementptr %tw.pool, ptr %pool, i64 0, i32 19
  store atomic i32 1, ptr %stop seq_cst, align 4
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %work)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  %started.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 18
  %started = load i32, ptr %started.p
  %workers.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 5
  %workers = load ptr, ptr %workers.p
  br label %head
head:
  %t = phi i32 [ 1, %0 ], [ %t.next, %join ]
  %more = icmp slt i32 %t, %started
  br i1 %more, label %join, label %end
join:
  %id.p = getelementptr %tw.worker, ptr %workers, i32 %t, i32 2
  %id = load i64, ptr %id.p
  call i32 @pthread_join(i64 %id, ptr null)
  %t.next = add i32 %t, 1
  br label %head
end:
  %key.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 2
  %key = load i32, ptr %key.p
  call i32 @pthread_key_delete(i32 %key)
  call i32 @pthread_cond_destroy(ptr %done)
  call i32 @pthread_cond_destroy(ptr %work)
  call i32 @pthread_mutex_destroy(ptr %mutex)
  call void @free(ptr %workers)
  call void @free(ptr %pool)
  ret void
}

; Start the worker threads. `started` counts the caller and the threads that exist: when the
; system refuses one, the pool goes on with those it has.
define internal void @tw.start(ptr %pool) noinline cold {
  %threads = load i32, ptr %pool
  %workers.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 5
  %workers = load ptr, ptr %workers.p
  %started = getelementptr %tw.pool, ptr %pool, i64 0, i32 18
  br label %head
head:
  %t = phi i32 [ 1, %0 ], [ %t.next, %next ]
  store i32 %t, ptr %started
  %more = icmp slt i32 %t, %threads
  br i1 %more, label %spawn, label %end
spawn:
  %me = getelementptr %tw.worker, ptr %workers, i32 %t
  store ptr %pool, ptr %me
  %number.p = getelementptr %tw.worker, ptr %me, i64 0, i32 1
  %number = zext i32 %t to i64
  store i64 %number, ptr %number.p
  %id.p = getelementptr %tw.worker, ptr %me, i64 0, i32 2
  %rc = call i32 @pthread_create(ptr %id.p, ptr null, ptr @tw.worker.main, ptr %me)
  %refused = icmp ne i32 %rc, 0
  br i1 %refused, label %end, label %next
next:
  %t.next = add i32 %t, 1
  br label %head
end:
  ret void
}

; Pin the calling thread to cpus[number].
define internal void @tw.pin(ptr %cpus, i64 %number) {
  %mask = alloca [16 x i64], align 8                       ; a cpu_set_t of 1024 processors
  call void @llvm.memset.p0.i64(ptr align 8 %mask, i8 0, i64 128, i1 false)
  %cpu.p = getelementptr i32, ptr %cpus, i64 %number
  %cpu = load i32, ptr %cpu.p
  %fits = icmp ult i32 %cpu, 1024
  br i1 %fits, label %set, label %end
set:
  %word = lshr i32 %cpu, 6
  %bit = and i32 %cpu, 63
  %bit64 = zext i32 %bit to i64
  %one = shl i64 1, %bit64
  %slot = getelementptr i64, ptr %mask, i32 %word
  store i64 %one, ptr %slot
  %self = call i64 @pthread_self()
  call i32 @pthread_setaffinity_np(i64 %self, i64 128, ptr %mask)
  br label %end
end:
  ret void
}

; Move the workers off the processor of the calling thread, when it is another one than last time.
;
; The system wakes a sleeper next to its waker: on the same processor, where it gets a turn only after
; the caller has done all the pieces itself. A balancer would separate them after milliseconds; most loops are shorter.
define internal void @tw.keep_clear(ptr %pool, ptr %allowed) {
  %mask = alloca [16 x i64], align 8
  %cpu = call i32 @sched_getcpu()
  %seen = add i32 %cpu, 1
  %caller.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 3
  %last = load i32, ptr %caller.p
  %same = icmp eq i32 %seen, %last
  %unknown = icmp uge i32 %cpu, 1024
  %skip = or i1 %same, %unknown
  br i1 %skip, label %end, label %move
move:
  store i32 %seen, ptr %caller.p
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %mask, ptr align 8 %allowed, i64 128, i1 false)
  %word = lshr i32 %cpu, 6
  %bit = and i32 %cpu, 63
  %bit64 = zext i32 %bit to i64
  %one = shl i64 1, %bit64
  %others = xor i64 %one, -1
  %slot = getelementptr i64, ptr %mask, i32 %word
  %before = load i64, ptr %slot
  %clear = and i64 %before, %others
  store i64 %clear, ptr %slot
  %started.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 18
  %started = load i32, ptr %started.p
  %workers.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 5
  %workers = load ptr, ptr %workers.p
  br label %head
head:
  %t = phi i32 [ 1, %move ], [ %t.next, %one.worker ]
  %more = icmp slt i32 %t, %started
  br i1 %more, label %one.worker, label %end
one.worker:
  %id.p = getelementptr %tw.worker, ptr %workers, i32 %t, i32 2
  %id = load i64, ptr %id.p
  call i32 @pthread_setaffinity_np(i64 %id, i64 128, ptr %mask)
  %t.next = add i32 %t, 1
  br label %head
end:
  ret void
}

; Life of a worker: take pieces while there are any, spin a while for more, then sleep.
define internal ptr @tw.worker.main(ptr %me) {
  %pool = load ptr, ptr %me
  %number.p = getelementptr %tw.worker, ptr %me, i64 0, i32 1
  %number = load i64, ptr %number.p
  %key.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 2
  %key = load i32, ptr %key.p
  %tag = inttoptr i64 %number to ptr
  call i32 @pthread_setspecific(i32 %key, ptr %tag)
  %cpus.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 4
  %cpus = load ptr, ptr %cpus.p
  %pinned = icmp ne ptr %cpus, null
  br i1 %pinned, label %pin, label %life
pin:
  call void @tw.pin(ptr %cpus, i64 %number)
  br label %life
life:
  %alive = call i1 @tw.await_work(ptr %pool)
  br i1 %alive, label %run, label %exit
run:
  call void @tw.drain(ptr %pool, i64 %number)
  br label %life
exit:
  ret ptr null
}

; Wait until a piece can be claimed (true) or the pool stops (false).
define internal i1 @tw.await_work(ptr %pool) {
  %spin.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 1
  %spin = load i32, ptr %spin.p
  %claim = getelementptr %tw.pool, ptr %pool, i64 0, i32 8
  %stop = getelementptr %tw.pool, ptr %pool, i64 0, i32 19
  %sleepers = getelementptr %tw.pool, ptr %pool, i64 0, i32 20
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %work = getelementptr %tw.pool, ptr %pool, i64 0, i32 24
  br label %spinning
spinning:
  %turn = phi i32 [ 0, %0 ], [ %turn.next, %again ]
  %open = load atomic i64, ptr %claim acquire, align 8
  %has = icmp sgt i64 %open, 0
  br i1 %has, label %found, label %idle
idle:
  %quit = load atomic i32, ptr %stop acquire, align 4
  %leave = icmp ne i32 %quit, 0
  br i1 %leave, label %stopped, label %relax
relax:
  %tired = icmp uge i32 %turn, %spin
  br i1 %tired, label %sleep, label %again
again:
  call void asm sideeffect "${RELAX}", "~{memory}"()
  %turn.next = add i32 %turn, 1
  br label %spinning
sleep:
  call i32 @pthread_mutex_lock(ptr %mutex)
  %announced = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  br label %check
check:
  %open2 = load atomic i64, ptr %claim seq_cst, align 8
  %has2 = icmp sgt i64 %open2, 0
  %quit2 = load atomic i32, ptr %stop seq_cst, align 4
  %leave2 = icmp ne i32 %quit2, 0
  %wake = or i1 %has2, %leave2
  br i1 %wake, label %woken, label %block
block:
  call i32 @pthread_cond_wait(ptr %work, ptr %mutex)
  br label %check
woken:
  %back = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br i1 %has2, label %found, label %stopped
found:
  ret i1 true
stopped:
  ret i1 false
}

; Take and run pieces of the open job as thread `number` until none is left to take.
define internal void @tw.drain(ptr %pool, i64 %number) {
  %claim = getelementptr %tw.pool, ptr %pool, i64 0, i32 8
  %unfinished = getelementptr %tw.pool, ptr %pool, i64 0, i32 10
  %body.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 12
  %ctx.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 13
  %count.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 14
  %chunks.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 15
  %waiting = getelementptr %tw.pool, ptr %pool, i64 0, i32 21
  br label %look
look:
  %left = load atomic i64, ptr %claim acquire, align 8
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %try, label %end
try:
  %less = sub i64 %left, 1
  %swap = cmpxchg ptr %claim, i64 %left, i64 %less seq_cst seq_cst, align 8
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %run, label %look
run:
  %body = load ptr, ptr %body.p
  %ctx = load ptr, ptr %ctx.p
  %count = load i64, ptr %count.p
  %chunks = load i64, ptr %chunks.p
  %piece = sub i64 %chunks, %left
  %size = udiv i64 %count, %chunks
  %rest = urem i64 %count, %chunks                         ; the first `rest` pieces are one longer
  %base = mul i64 %piece, %size
  %before = call i64 @llvm.smin.i64(i64 %piece, i64 %rest)
  %begin = add i64 %base, %before
  %longer = icmp slt i64 %piece, %rest
  %extra = zext i1 %longer to i64
  %length = add i64 %size, %extra
  %stop = add i64 %begin, %length
  call void %body(ptr %ctx, i64 %begin, i64 %stop, i64 %number)
  %was = atomicrmw sub ptr %unfinished, i64 1 seq_cst, align 8
  %last = icmp eq i64 %was, 1
  br i1 %last, label %finish, label %look
finish:
  %sleeping = load atomic i32, ptr %waiting seq_cst, align 4
  %wake = icmp ne i32 %sleeping, 0
  br i1 %wake, label %signal, label %end
signal:
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %done = getelementptr %tw.pool, ptr %pool, i64 0, i32 25
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_signal(ptr %done)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %end
end:
  ret void
}

; Wait until every piece of the job is done.
define internal void @tw.await_done(ptr %pool) {
  %spin.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 1
  %spin = load i32, ptr %spin.p
  %unfinished = getelementptr %tw.pool, ptr %pool, i64 0, i32 10
  br label %spinning
spinning:
  %turn = phi i32 [ 0, %0 ], [ %turn.next, %again ]
  %left = load atomic i64, ptr %unfinished acquire, align 8
  %finished = icmp eq i64 %left, 0
  br i1 %finished, label %end, label %relax
relax:
  %tired = icmp uge i32 %turn, %spin
  br i1 %tired, label %sleep, label %again
again:
  call void asm sideeffect "${RELAX}", "~{memory}"()
  %turn.next = add i32 %turn, 1
  br label %spinning
sleep:
  %waiting = getelementptr %tw.pool, ptr %pool, i64 0, i32 21
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %done = getelementptr %tw.pool, ptr %pool, i64 0, i32 25
  call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %waiting seq_cst, align 4
  br label %check
check:
  %left2 = load atomic i64, ptr %unfinished seq_cst, align 8
  %finished2 = icmp eq i64 %left2, 0
  br i1 %finished2, label %woken, label %block
block:
  call i32 @pthread_cond_wait(ptr %done, ptr %mutex)
  br label %check
woken:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %end
end:
  ret void
}

; Run body(ctx, begin, end, thread) over [0, count) and return when all of it is done.
;
; Runs on the calling thread alone when there is no pool, one thread, one iteration, or when the
; pool is busy: a nested loop, or a second caller. There, a worker keeps its own thread number, so
; a nested loop uses the workspace slice of the thread it runs on.
define void @tw_parallel_for(ptr %pool, ptr %body, ptr %ctx, i64 %count) {
  %empty = icmp sle i64 %count, 0
  br i1 %empty, label %end, label %some
some:
  %null = icmp eq ptr %pool, null
  br i1 %null, label %alone, label %pooled
alone:
  call void %body(ptr %ctx, i64 0, i64 %count, i64 0)
  ret void
pooled:
  %threads = load i32, ptr %pool
  %single = icmp sle i32 %threads, 1
  %one = icmp eq i64 %count, 1
  %small = or i1 %single, %one
  br i1 %small, label %inline, label %acquire
acquire:
  %busy = getelementptr %tw.pool, ptr %pool, i64 0, i32 17
  %swap = cmpxchg ptr %busy, i32 0, i32 1 seq_cst seq_cst, align 4
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %post, label %inline
inline:
  %key.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 2
  %key = load i32, ptr %key.p
  %tag = call ptr @pthread_getspecific(i32 %key)
  %number = ptrtoint ptr %tag to i64
  call void %body(ptr %ctx, i64 0, i64 %count, i64 %number)
  ret void
post:
  %started.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 18
  %started = load i32, ptr %started.p
  %cold = icmp eq i32 %started, 0
  br i1 %cold, label %start, label %place
start:
  call void @tw.start(ptr %pool)
  br label %place
place:
  %allowed.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 6
  %allowed = load ptr, ptr %allowed.p
  %free = icmp eq ptr %allowed, null
  br i1 %free, label %publish, label %apart
apart:
  call void @tw.keep_clear(ptr %pool, ptr %allowed)
  br label %publish
publish:
  %body.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 12
  store ptr %body, ptr %body.p
  %ctx.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 13
  store ptr %ctx, ptr %ctx.p
  %count.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 14
  store i64 %count, ptr %count.p
  ; Four pieces a thread: enough to absorb a slow thread, few enough that claiming is free.
  %n = zext i32 %threads to i64
  %most = shl i64 %n, 2
  %chunks = call i64 @llvm.smin.i64(i64 %count, i64 %most)
  %chunks.p = getelementptr %tw.pool, ptr %pool, i64 0, i32 15
  store i64 %chunks, ptr %chunks.p
  %unfinished = getelementptr %tw.pool, ptr %pool, i64 0, i32 10
  store atomic i64 %chunks, ptr %unfinished seq_cst, align 8
  %claim = getelementptr %tw.pool, ptr %pool, i64 0, i32 8
  store atomic i64 %chunks, ptr %claim seq_cst, align 8
  %sleepers = getelementptr %tw.pool, ptr %pool, i64 0, i32 20
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %wake = icmp ne i32 %asleep, 0
  br i1 %wake, label %rouse, label %work
rouse:
  %mutex = getelementptr %tw.pool, ptr %pool, i64 0, i32 23
  %cond = getelementptr %tw.pool, ptr %pool, i64 0, i32 24
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %cond)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %work
work:
  call void @tw.drain(ptr %pool, i64 0)
  call void @tw.await_done(ptr %pool)
  store atomic i32 0, ptr %busy release, align 4
  br label %end
end:
  ret void
}
