"""Many sites on one machine: the same rounds, tasks, privacy and aggregation as between hospitals.

Hospitals that never were: simulations.synthetic.hospitals (write_hospitals, write_hospital,
demo_cohort, CohortSpec, HospitalSpec), with the truth about their patients in
simulations.synthetic.patients. One source as several sites: simulations.comparison.partition
(label_skew, quantity_skew, group_skew, scanner_skew).
"""
