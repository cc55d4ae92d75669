print("this line belongs on standard error")
raise SystemExit(3)
